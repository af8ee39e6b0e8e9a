"""What an action was worth: the advantage and the value target, as a part that policy gradients share.

From the lectures' first form to their last, each with less variance than the one before: `TotalReturn`, `RewardToGo`, the
same less a baseline (`Mean`, `Value`), `NStep`, `GAE`; `VTrace` where another policy acted.

A learnt Q(s, a) is none of them: all take a value of states, as does every agent that they are a part of, and a Q needs a critic that
answers for actions, a target of its own and discrete actions. So it is an agent, `QAC`.
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from yozh import returns
from yozh.core import Experience, Unroll, check_not_negative, check_positive, check_share, leaf, require, static
from yozh.losses import weighted_mean
from yozh.stores import Episodes

Rewards = Float[Array, "T1 B"]
"""Of the T+1 steps of an unroll, raw or scaled."""


class Estimate(eqx.Module):
    advantage: Float[Array, "T B"]
    target: Float[Array, "T B"]
    """Of the value."""
    weight: Float[Array, "T B"]
    """0 where the action was ignored by the environment."""


class Estimator(eqx.Module):
    whole: ClassVar[bool] = False
    """Whether it needs whole episodes, one in each stream from the unroll's first step on."""

    @property
    def critic(self) -> bool:
        """Whether it uses the value, which must then be learnt."""
        return True

    def check(self, name: str, experience: Experience) -> None:
        """Refuses experience that it makes nothing of, for the agent of this name."""
        require(
            not self.whole or isinstance(experience.store, Episodes),
            f"{name}: {type(self).__name__} needs whole episodes, and unrolls of fixed length cut them; use reinforce, or GAE(1.0)",
        )

    @abc.abstractmethod
    def __call__(self, unroll: Unroll, reward: Rewards, value: Rewards, gamma: Float[Array, ""], ratio: Float[Array, "T B"] | None = None) -> Estimate:  # fmt: skip
        """From the T+1 steps of an unroll, their rewards and their values. `ratio`: how much likelier the actions are now than
        under the policy that took them; who does not correct for it does not look at it."""


class GAE(Estimator):
    """Generalised advantage estimation (Schulman et al. 2016); its value target is the λ-return."""

    lam: Float[Array, ""] = leaf(0.95)
    """λ: 0 is the one-step TD error, 1 the Monte-Carlo return minus the value."""

    def __check_init__(self) -> None:
        check_share("estimator.lam", self.lam)

    def __call__(self, unroll: Unroll, reward: Rewards, value: Rewards, gamma: Float[Array, ""], ratio: Float[Array, "T B"] | None = None) -> Estimate:  # fmt: skip
        _, discount_t, lam_t, weight = returns.segment(unroll, gamma, self.lam)
        advantage = returns.gae(reward[1:], discount_t, lam_t, value[:-1], value[1:])
        return Estimate(advantage, advantage + value[:-1], weight)


class NStep(Estimator):
    """The return of n steps, bootstrapped from the value (Mnih et al. 2016); `NStep(1)` is the TD advantage."""

    n: int = static(5)

    def __check_init__(self) -> None:
        require(self.n > 0, f"estimator.n must be positive, not {self.n}")

    def check(self, name: str, experience: Experience) -> None:
        require(
            isinstance(experience.store, Episodes) or self.n <= experience.unroll,
            f"{name}: unrolls of {experience.unroll} steps are shorter than n = {self.n}",
        )

    def __call__(self, unroll: Unroll, reward: Rewards, value: Rewards, gamma: Float[Array, ""], ratio: Float[Array, "T B"] | None = None) -> Estimate:  # fmt: skip
        _, discount_t, lam_t, weight = returns.segment(unroll, gamma, 1.0)
        target = returns.n_step_return(reward[1:], discount_t, lam_t, value[1:], self.n)
        return Estimate(target - value[:-1], target, weight)


class VTrace(Estimator):
    """V-trace (Espeholt et al. 2018): what the present policy would have earned, though a slightly older one acted.

    Where both are the same it is the n-step return of the whole unroll, and with λ < 1 the λ-return.
    """

    lam: Float[Array, ""] = leaf(1.0)
    rho_clip: Float[Array, ""] = leaf(1.0)
    """Of the ratio in each correction: it says whose value is learnt."""
    c_clip: Float[Array, ""] = leaf(1.0)
    """Of the ratio in the trace: it says how quickly."""

    def __check_init__(self) -> None:
        check_share("estimator.lam", self.lam)
        check_positive("estimator.rho_clip", self.rho_clip)
        check_not_negative("estimator.c_clip", self.c_clip)

    def __call__(self, unroll: Unroll, reward: Rewards, value: Rewards, gamma: Float[Array, ""], ratio: Float[Array, "T B"] | None = None) -> Estimate:  # fmt: skip
        _, discount_t, lam_t, weight = returns.segment(unroll, gamma, self.lam)
        ratio = jnp.ones_like(weight) if ratio is None else ratio
        clips = self.rho_clip, self.c_clip
        found = returns.vtrace(reward[1:], discount_t, lam_t, value[:-1], value[1:], ratio, *clips)
        return Estimate(found.advantage, found.target, weight)


class Baseline(eqx.Module):
    """What is subtracted from a return. It may depend on the state, never on the action: then the gradient's mean stays."""

    critic: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, target: Float[Array, "T B"], value: Float[Array, "T B"], weight: Float[Array, "T B"]) -> Float[Array, "T B"]: ...  # fmt: skip


class Nothing(Baseline):
    def __call__(self, target: Float[Array, "T B"], value: Float[Array, "T B"], weight: Float[Array, "T B"]) -> Float[Array, "T B"]:  # fmt: skip
        return jnp.zeros_like(target)


class Mean(Baseline):
    """The mean return of the batch. Each episode is a part of it, so the gradient shrinks by a factor of about 1 - 1/N."""

    def __call__(self, target: Float[Array, "T B"], value: Float[Array, "T B"], weight: Float[Array, "T B"]) -> Float[Array, "T B"]:  # fmt: skip
        return jnp.broadcast_to(weighted_mean(target, weight), target.shape)


class Value(Baseline):
    """V(s), learnt by regression on the returns."""

    critic: ClassVar[bool] = True

    def __call__(self, target: Float[Array, "T B"], value: Float[Array, "T B"], weight: Float[Array, "T B"]) -> Float[Array, "T B"]:  # fmt: skip
        return value


class MonteCarlo(Estimator):
    """A return of whole episodes, less a baseline. Where a time limit cuts an episode the return ends: nothing is bootstrapped."""

    baseline: Baseline = Nothing()
    """`Nothing()`, `Mean()` or `Value()`."""

    whole: ClassVar[bool] = True

    @property
    def critic(self) -> bool:
        return self.baseline.critic

    def __call__(self, unroll: Unroll, reward: Rewards, value: Rewards, gamma: Float[Array, ""], ratio: Float[Array, "T B"] | None = None) -> Estimate:  # fmt: skip
        _, discount_t, lam_t, weight = returns.segment(unroll, gamma, 1.0)
        target = self.returned(returns.reward_to_go(reward[1:], discount_t, lam_t))
        return Estimate(target - self.baseline(target, value[:-1], weight), target, weight)

    @abc.abstractmethod
    def returned(self, to_go: Float[Array, "T B"]) -> Float[Array, "T B"]: ...


class TotalReturn(MonteCarlo):
    """`R(τ) = Σ_t γ^t r_{t+1}` for every action of the episode, also for those that came after the reward."""

    def returned(self, to_go: Float[Array, "T B"]) -> Float[Array, "T B"]:
        return jnp.broadcast_to(to_go[:1], to_go.shape)


class RewardToGo(MonteCarlo):
    """`G_t = Σ_{k ≥ 0} γ^k r_{t+k+1}`: an action is not charged with what was earned before it."""

    def returned(self, to_go: Float[Array, "T B"]) -> Float[Array, "T B"]:
        return to_go
