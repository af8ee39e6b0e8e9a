"""How much it costs a policy to leave the one that acted, as a part."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from yozh.core import check_not_negative, check_positive, leaf

LEAST, MOST = 1e-6, 1e6


class Penalty(eqx.Module):
    """β, by which the KL divergence is multiplied."""

    beta: eqx.AbstractVar[Array]

    @abc.abstractmethod
    def after(self, beta: Float[Array, ""], kl: Float[Array, ""]) -> Float[Array, ""]:
        """β for the next unroll, if that of this one left a mean KL divergence of so much."""


class Fixed(Penalty):
    beta: Float[Array, ""] = leaf(1.0)

    def __check_init__(self) -> None:
        check_not_negative("penalty.beta", self.beta)

    def after(self, beta: Float[Array, ""], kl: Float[Array, ""]) -> Float[Array, ""]:
        return beta


class Adaptive(Penalty):
    """β is doubled where KL > 1.5 d and halved where KL < d / 1.5 (Schulman et al. 2017, section 4); it stays within 1e-6 and 1e6."""

    target: Float[Array, ""] = leaf(0.01)
    """d: the mean KL divergence that an unroll should lead to."""
    beta: Float[Array, ""] = leaf(1.0)
    """Before the first unroll."""

    def __check_init__(self) -> None:
        check_not_negative("penalty.beta", self.beta)
        check_positive("penalty.target", self.target)

    def after(self, beta: Float[Array, ""], kl: Float[Array, ""]) -> Float[Array, ""]:
        factor = jnp.where(kl > 1.5 * self.target, 2.0, jnp.where(kl < self.target / 1.5, 0.5, 1.0))
        return jnp.clip(beta * factor, LEAST, MOST)


def as_penalty(penalty: Any) -> Penalty | None:
    """A number is a β that stays; `None` is no penalty."""
    return penalty if penalty is None or isinstance(penalty, Penalty) else Fixed(penalty)
