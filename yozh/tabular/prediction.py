"""Learning what a policy is worth from transitions, linear in features: `v(s) = w · x(s)`; one-hot features are a table.

A rule is written for one transition and tells by how much everything changes; `learn` goes through transitions one after the
other, `sweep` looks at all of them at once. Weights, step sizes and transitions may be vmapped.
"""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yozh import returns
from yozh.core import check_share, leaf, require
from yozh.tabular.mdp import Trajectory


class Steps(NamedTuple):
    """Transitions as a linear learner takes them, `[*T, ...]`."""

    x_tm1: Float[Array, "*T d"]
    reward_t: Float[Array, "*T"]
    discount_t: Float[Array, "*T"]
    """Gamma, 0 where the episode ended."""
    x_t: Float[Array, "*T d"]
    ratio_tm1: Float[Array, "*T"]
    """π(a|s) / μ(a|s): the policy that is valued over the one that acted; 1 where they are the same."""


def linear(trajectory: Trajectory, features: Any, gamma: Any, ratio: Any = None) -> Steps:
    """The transitions with features `[S, d]` in the place of states (`np.eye(S)` for a table); `ratio [S, A]` says how much more
    often the policy that is valued takes an action than the one that acted."""
    check_share("gamma", gamma)
    x = jnp.asarray(features, jnp.float32)
    ones = jnp.ones_like(trajectory.reward_t)
    weight = ones if ratio is None else jnp.asarray(ratio, jnp.float32)[trajectory.state_tm1, trajectory.action_tm1]
    return Steps(
        x[trajectory.state_tm1], trajectory.reward_t, gamma * trajectory.discount_t, x[trajectory.state_t], weight
    )


def n_step(steps: Steps, n: int) -> Steps:
    """Each transition as one of n steps, with the sum of their discounted rewards, or of fewer where the episode or the data
    ends; TD of these is n-step TD (Sutton & Barto 2018, eqs. 7.1, 7.2 and 7.9)."""
    require(n > 0, f"n must be positive, not {n}")
    zero, one = jnp.zeros_like(steps.reward_t), jnp.ones_like(steps.reward_t)
    going = (steps.discount_t > 0).astype(one.dtype)
    reward = returns.n_step_return(steps.reward_t, steps.discount_t, 1.0, zero, n)
    discount = returns.n_step_return(zero, steps.discount_t, 1.0, one, n)
    ratio = returns.n_step_return(zero, steps.ratio_tm1, going, one, n)
    reach = jnp.minimum(jnp.arange(len(one)) + n, len(one)) - 1
    return Steps(steps.x_tm1, reward, discount, steps.x_t[reach], ratio)


class Weights(NamedTuple):
    """What a rule learns."""

    w: Float[Array, "*T d"]
    aid: Float[Array, "*T d"]
    """What the rule keeps besides: a trace, a second set of weights; zeros where it needs none."""


class Rule(eqx.Module):
    alpha: eqx.AbstractVar[Array]

    @abc.abstractmethod
    def change(self, now: Weights, step: Steps) -> Weights:
        """By how much one transition changes the weights."""


class TD(Rule):
    """`w += α ρ δ x`, `δ = r + γ w · x' - w · x` (Sutton & Barto 2018, eq. 11.2): semi-gradient TD(0)."""

    alpha: Float[Array, ""] = leaf(0.1)

    def change(self, now: Weights, step: Steps) -> Weights:
        return Weights(self.alpha * step.ratio_tm1 * _error(now.w, step) * step.x_tm1, jnp.zeros_like(now.aid))


class TDLambda(Rule):
    """`w += α δ z`, `z = ρ (γ λ z + x)` (Sutton & Barto 2018, eqs. 12.5 to 12.7 and 12.25); `aid` is the trace on arriving, γ λ z."""

    alpha: Float[Array, ""] = leaf(0.1)
    lam: Float[Array, ""] = leaf(0.9)

    def __check_init__(self) -> None:
        check_share("lam", self.lam)

    def change(self, now: Weights, step: Steps) -> Weights:
        trace = step.ratio_tm1 * (now.aid + step.x_tm1)
        return Weights(self.alpha * _error(now.w, step) * trace, step.discount_t * self.lam * trace - now.aid)


class GTD2(Rule):
    """`w += α ρ (x - γ x') (h · x)`, `h += β ρ (δ - h · x) x` (Sutton et al. 2009): descends the projected Bellman error;
    `aid` is h."""

    alpha: Float[Array, ""] = leaf(0.01)
    beta: Float[Array, ""] = leaf(0.1)

    def change(self, now: Weights, step: Steps) -> Weights:
        known = jnp.dot(now.aid, step.x_tm1)
        away = step.x_tm1 - step.discount_t * step.x_t
        return Weights(self.alpha * step.ratio_tm1 * known * away, _follow(self.beta, known, now.w, step))


class TDC(Rule):
    """`w += α ρ (δ x - γ x' (h · x))`, h as in GTD2 (Sutton et al. 2009; Sutton & Barto 2018, section 11.7): TD with a
    correction that makes it a gradient; `aid` is h."""

    alpha: Float[Array, ""] = leaf(0.01)
    beta: Float[Array, ""] = leaf(0.1)

    def change(self, now: Weights, step: Steps) -> Weights:
        known = jnp.dot(now.aid, step.x_tm1)
        along = _error(now.w, step) * step.x_tm1 - step.discount_t * known * step.x_t
        return Weights(self.alpha * step.ratio_tm1 * along, _follow(self.beta, known, now.w, step))


def _error(w: Float[Array, " d"], step: Steps) -> Float[Array, ""]:
    return step.reward_t + step.discount_t * jnp.dot(w, step.x_t) - jnp.dot(w, step.x_tm1)


def _follow(beta: Float[Array, ""], known: Float[Array, ""], w: Float[Array, " d"], step: Steps) -> Float[Array, " d"]:
    return beta * step.ratio_tm1 * (_error(w, step) - known) * step.x_tm1


def learn(rule: Rule, w: Float[Array, " d"], steps: Steps) -> Weights:
    """The weights after each of the transitions `[T]`, one after the other: `[T, d]`."""

    def one(now: Weights, step: Steps) -> tuple[Weights, Weights]:
        now = jax.tree.map(jnp.add, now, rule.change(now, step))
        return now, now

    return jax.lax.scan(one, Weights(w, jnp.zeros_like(w)), steps)[1]


def sweep(rule: Rule, w: Float[Array, " d"], steps: Steps, sweeps: int) -> Weights:
    """The weights after each of many synchronous sweeps, `[sweeps, d]`: each changes them by the mean of what all the transitions
    `[T]` ask for. Not for rules with a trace, which needs an order."""
    require(not isinstance(rule, TDLambda), "a sweep has no order for traces to follow; use TD, TDC or GTD2")

    def one(now: Weights, _: None) -> tuple[Weights, Weights]:
        changes = jax.vmap(rule.change, in_axes=(None, 0))(now, steps)
        now = jax.tree.map(lambda x, c: x + c.mean(0), now, changes)
        return now, now

    return jax.lax.scan(one, Weights(w, jnp.zeros_like(w)), length=sweeps)[1]
