"""Estimates of a policy's gradient from sessions: what `∇log π(a_t|s_t)` is multiplied by, in the order of variance.

    ∇J ≈ 1/N Σ_sessions Σ_t  w_t ∇log π(a_t | s_t)

Every w here but `discounted_return`'s carries the γᵗ of the theorem (Sutton et al. 2000), so that the sum is unbiased for the discounted
value of the start, up to wrong values where it bootstraps. What follows the end of a session weighs nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from yozh import returns
from yozh.core import AnyArray, check_share
from yozh.losses import weighted_mean
from yozh.tabular.mdp import MDP, Trajectory, follow


class Sessions(NamedTuple):
    """B sessions from their beginnings, `[T, B]`."""

    reward_t: Float[Array, "T B"]
    discount_t: Float[Array, "T B"]
    """Gamma, 0 where the session ended."""
    weight_tm1: Float[Array, "T B"]
    """1, and 0 after the session's end."""
    value_tm1: Float[Array, "T B"]
    """V(s_t), as far as it is known."""
    value_t: Float[Array, "T B"]
    q_tm1: Float[Array, "T B"]
    """Q(s_t, a_t), as far as it is known."""


Estimate = Callable[[Sessions], Float[Array, "T B"]]


def sessions(mdp: MDP, policy: Float[AnyArray, "S A"], gamma: float, value: Float[AnyArray, " S"], q: Float[AnyArray, "S A"], *,
             steps: int, batch: int, key: Key[Array, ""]) -> tuple[Trajectory, Sessions]:  # fmt: skip
    """So many sessions of a policy, cut after `steps`; `value` and `q` are what is thought of states and actions."""
    check_share("gamma", gamma)
    went = jax.vmap(lambda key: follow(mdp, policy, steps, key), out_axes=1)(jax.random.split(key, batch))
    weight = _before(went.discount_t)
    v, q = jnp.asarray(value, jnp.float32), jnp.asarray(q, jnp.float32)
    values = v[went.state_tm1], v[went.state_t] * went.discount_t, q[went.state_tm1, went.action_tm1]
    return went, Sessions(went.reward_t, gamma * went.discount_t, weight, *values)


def _before(x: Float[Array, "T B"]) -> Float[Array, "T B"]:
    """The product of what came before each step."""
    return jnp.cumprod(jnp.concatenate([jnp.ones_like(x[:1]), x[:-1]]), 0)


def _go(s: Sessions) -> Float[Array, "T B"]:
    """`G_t = r_{t+1} + γ r_{t+2} + ...`."""
    return returns.discounted_return(s.reward_t, s.discount_t, jnp.zeros_like(s.reward_t[0]))


def total_return(s: Sessions) -> Float[Array, "T B"]:
    """`R(τ) = Σ_k γᵏ r_k`, at every step alike (Williams 1992)."""
    return s.weight_tm1 * _go(s)[:1]


def discounted_return(s: Sessions) -> Float[Array, "T B"]:
    """`G_t` without the γᵗ: what programs do; biased, as if late steps counted as much as early ones."""
    return s.weight_tm1 * _go(s)


def reward_to_go(s: Sessions) -> Float[Array, "T B"]:
    """`γᵗ G_t`: no action is praised for what was before it."""
    return _before(s.discount_t) * _go(s)


def mean_baseline(s: Sessions) -> Float[Array, "T B"]:
    """`γᵗ (G_t - mean G)`, the mean over all steps of all sessions."""
    go = _go(s)
    return _before(s.discount_t) * (go - weighted_mean(go, s.weight_tm1))


def value_baseline(s: Sessions) -> Float[Array, "T B"]:
    """`γᵗ (G_t - V(s_t))`."""
    return _before(s.discount_t) * (_go(s) - s.value_tm1)


def action_value(s: Sessions) -> Float[Array, "T B"]:
    """`γᵗ Q(s_t, a_t)`."""
    return _before(s.discount_t) * s.q_tm1


def generalised(lam: float) -> Estimate:
    """`γᵗ Σ_l (γλ)ˡ δ_{t+l}` (Schulman et al. 2016)."""
    return lambda s: _before(s.discount_t) * returns.gae(s.reward_t, s.discount_t, lam, s.value_tm1, s.value_t)


def k_steps(k: int) -> Estimate:
    """`γᵗ (r_{t+1} + ... + γᵏ V(s_{t+k}) - V(s_t))`."""
    return lambda s: (
        _before(s.discount_t) * (returns.n_step_return(s.reward_t, s.discount_t, 1.0, s.value_t, k) - s.value_tm1)
    )


def td_advantage(s: Sessions) -> Float[Array, "T B"]:
    """`γᵗ (r_{t+1} + γ V(s_{t+1}) - V(s_t))`."""
    return _before(s.discount_t) * returns.td_error(s.reward_t, s.discount_t, s.value_tm1, s.value_t)


def advantage(s: Sessions) -> Float[Array, "T B"]:
    """`γᵗ (Q(s_t, a_t) - V(s_t))`."""
    return _before(s.discount_t) * (s.q_tm1 - s.value_tm1)
