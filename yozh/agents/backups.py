"""What the first action of a window was worth, as a part: where the target comes from."""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yozh import returns
from yozh.agents.values import Outcomes, taken
from yozh.core import TimeStep, Unroll, check_positive, check_share, concrete, leaf, require
from yozh.losses import select


class Look(NamedTuple):
    """What is thought of a batch of steps."""

    prefer: Float[Array, "*b actions"]
    """What to choose by; the lowest number there is where an action is not legal."""
    outcomes: Outcomes
    """Of all actions, as the target network has them."""


Looking = Callable[[TimeStep], Look]


class Target(NamedTuple):
    outcomes: Outcomes
    """Of the window's first action, `[B, n]`."""
    weight: Float[Array, " B"]
    """0 where the window begins at the last step of an episode."""


class Backup(eqx.Module):
    @abc.abstractmethod
    def __call__(self, look: Looking, window: Unroll, gamma: Float[Array, ""]) -> Target:
        """From n+1 steps, `[n+1, B, ...]`."""


class Greedy(Backup):
    """R + Γ Q(s', argmax_a Q(s', a)) after n steps, or at the end of the episode."""

    def __call__(self, look: Looking, window: Unroll, gamma: Float[Array, ""]) -> Target:
        reward, discount, step_t, weight = returns.window(window, gamma)
        prefer, outcomes = look(step_t)
        best = jnp.argmax(prefer, -1).astype(jnp.int32)
        return Target(outcomes.of(best).after(reward, discount), weight)


class Munchausen(Backup):
    """R + Γ Σ_a π(a|s') (Q(s', a) − τ log π(a|s')), where every reward is raised by α τ log π(a|s), and π = softmax(Q/τ) of the
    target network (Vieillard et al. 2020)."""

    temperature: Float[Array, ""] = leaf(0.03)
    """τ, on the scale of returns."""
    share: Float[Array, ""] = leaf(0.9)
    """α: how much of the log-policy is paid."""
    lowest: Float[Array, ""] = leaf(-1.0)
    """l₀: τ log π is clipped to [l₀, 0]."""

    def __check_init__(self) -> None:
        check_positive("backup.temperature", self.temperature)
        check_share("backup.share", self.share)
        require(
            not concrete(self.lowest) or float(self.lowest) <= 0,
            lambda: f"backup.lowest must not be positive, and is {self.lowest}",
        )

    def __call__(self, look: Looking, window: Unroll, gamma: Float[Array, ""]) -> Target:
        before = jax.tree.map(lambda x: x[:-1], window.step)
        cost = select(self.log_policy(jax.vmap(look)(before).prefer), window.action[:-1])
        paid = jnp.asarray(window.step.reward).at[1:].add(self.share * jnp.clip(cost, self.lowest, 0.0))
        reward, discount, step_t, weight = returns.window(eqx.tree_at(lambda u: u.step.reward, window, paid), gamma)
        prefer, outcomes = look(step_t)
        log_policy = self.log_policy(prefer)
        policy = jnp.exp(log_policy / self.temperature)
        return Target(outcomes.mixed(policy, -log_policy).after(reward, discount), weight)

    def log_policy(self, prefer: Float[Array, "*b actions"]) -> Float[Array, "*b actions"]:
        """τ log π, finite where an action is not legal."""
        gap = jnp.maximum(prefer - prefer.max(-1, keepdims=True), -1e4 * self.temperature)
        return gap - self.temperature * jax.nn.logsumexp(gap / self.temperature, -1, keepdims=True)


class Traced(Backup):
    """Q(s, a) and the errors that follow, as far as the trace lasts: at most to the end of the window or the episode."""

    lam: eqx.AbstractVar[Array]

    def __check_init__(self) -> None:
        check_share("backup.lam", self.lam)

    @abc.abstractmethod
    def ratio(self, greedy: Float[Array, "n B"]) -> Float[Array, "n B"]:
        """How much of the trace an action lets through that was greedy (1) or was not (0)."""

    def __call__(self, look: Looking, window: Unroll, gamma: Float[Array, ""]) -> Target:
        reward_t, discount_t, lambda_t, weight = returns.segment(window, gamma, self.lam)
        prefer, outcomes = jax.vmap(look)(window.step)
        best = jnp.argmax(prefer, -1).astype(jnp.int32)
        value_t = taken(outcomes.worth, best)[1:, :, 0]
        q_tm1 = taken(outcomes.worth, window.action)[:-1, :, 0]
        ratio_tm1 = self.ratio((best == window.action).astype(jnp.float32))[:-1]
        found = returns.retrace(reward_t, discount_t, lambda_t, q_tm1, value_t, ratio_tm1)[0][:, None]
        return Target(Outcomes(found, jnp.ones_like(found)), weight[0])


class Retrace(Traced):
    """Retrace(λ) of the greedy policy (Munos et al. 2016): the trace ends before the first action that is not greedy. As the
    policy is greedy, this is Watkins's Q(λ), and with which chance the action was taken does not matter."""

    lam: Float[Array, ""] = leaf(1.0)
    """λ"""

    def ratio(self, greedy: Float[Array, "n B"]) -> Float[Array, "n B"]:
        return greedy


class Peng(Traced):
    """Peng's Q(λ): no trace is cut, and the values found lie between those of the policy that acts and of the greedy one."""

    lam: Float[Array, ""] = leaf(0.7)
    """λ"""

    def ratio(self, greedy: Float[Array, "n B"]) -> Float[Array, "n B"]:
        return jnp.ones_like(greedy)
