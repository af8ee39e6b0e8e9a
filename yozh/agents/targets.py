"""How a target network follows the one that learns."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from yozh.core import check_positive, check_share, leaf


class TargetUpdate(eqx.Module):
    @abc.abstractmethod
    def __call__(self, online: PyTree, target: PyTree, updates: Int[Array, ""]) -> PyTree:
        """The new target network after the given number of updates."""


class Hard(TargetUpdate):
    """A copy every `period` updates (Mnih et al. 2015)."""

    period: Int[Array, ""] = eqx.field(default=1000, converter=lambda x: jnp.asarray(x, jnp.int32))

    def __check_init__(self) -> None:
        check_positive("target.period", self.period)

    def __call__(self, online: PyTree, target: PyTree, updates: Int[Array, ""]) -> PyTree:
        due = updates % self.period == 0
        return jax.tree.map(lambda o, t: jnp.where(due, o, t), online, target)


class Soft(TargetUpdate):
    """`θ⁻ ← rate · θ + (1 − rate) · θ⁻` after every update (Lillicrap et al. 2016)."""

    rate: Float[Array, ""] = leaf(0.005)

    def __check_init__(self) -> None:
        check_share("target.rate", self.rate, "(0, 1]")

    def __call__(self, online: PyTree, target: PyTree, updates: Int[Array, ""]) -> PyTree:
        return jax.tree.map(lambda o, t: self.rate * o + (1.0 - self.rate) * t, online, target)
