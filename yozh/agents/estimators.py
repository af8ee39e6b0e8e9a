"""What an action was worth: the advantage and the value target, as a part that actor-critics share."""

import abc

import equinox as eqx
from jaxtyping import Array, Float

from yozh import returns
from yozh.core import Unroll, concrete, leaf, require, static


class Estimate(eqx.Module):
    advantage: Float[Array, "T B"]
    target: Float[Array, "T B"]
    """Of the value."""
    weight: Float[Array, "T B"]
    """0 where the action was ignored by the environment."""


class Estimator(eqx.Module):
    @abc.abstractmethod
    def __call__(self, unroll: Unroll, reward: Float[Array, "T1 B"], value: Float[Array, "T1 B"], gamma: Float[Array, ""]) -> Estimate:  # fmt: skip
        """From the T+1 steps of an unroll, their rewards (raw or scaled) and their values."""


class GAE(Estimator):
    """Generalised advantage estimation (Schulman et al. 2016); its value target is the λ-return."""

    lam: Float[Array, ""] = leaf(0.95)
    """λ: 0 is the one-step TD error, 1 the Monte-Carlo return minus the value."""

    def __check_init__(self) -> None:
        require(not concrete(self.lam) or 0 <= self.lam <= 1, lambda: f"estimator.lam lies in [0, 1], not {self.lam}")

    def __call__(self, unroll: Unroll, reward: Float[Array, "T1 B"], value: Float[Array, "T1 B"], gamma: Float[Array, ""]) -> Estimate:  # fmt: skip
        _, discount_t, lam_t, weight = returns.segment(unroll, gamma, self.lam)
        advantage = returns.gae(reward[1:], discount_t, lam_t, value[:-1], value[1:])
        return Estimate(advantage, advantage + value[:-1], weight)


class NStep(Estimator):
    """The return of n steps, bootstrapped from the value (Mnih et al. 2016)."""

    n: int = static(5)

    def __check_init__(self) -> None:
        require(self.n > 0, f"estimator.n must be positive, not {self.n}")

    def __call__(self, unroll: Unroll, reward: Float[Array, "T1 B"], value: Float[Array, "T1 B"], gamma: Float[Array, ""]) -> Estimate:  # fmt: skip
        _, discount_t, lam_t, weight = returns.segment(unroll, gamma, 1.0)
        target = returns.n_step_return(reward[1:], discount_t, lam_t, value[1:], self.n)
        return Estimate(target - value[:-1], target, weight)
