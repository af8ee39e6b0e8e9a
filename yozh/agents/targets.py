"""How a target network follows the one that learns."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from yozh.core import concrete, leaf, require


class TargetUpdate(eqx.Module):
    @abc.abstractmethod
    def __call__(self, online: PyTree, target: PyTree, updates: Int[Array, ""]) -> PyTree:
        """The new target network after the given number of updates."""


class Hard(TargetUpdate):
    """A copy every `period` updates (Mnih et al. 2015)."""

    period: Int[Array, ""] = eqx.field(default=1000, converter=lambda x: jnp.asarray(x, jnp.int32))

    def __check_init__(self) -> None:
        require(
            not concrete(self.period) or self.period > 0, lambda: f"target.period must be positive, not {self.period}"
        )

    def __call__(self, online: PyTree, target: PyTree, updates: Int[Array, ""]) -> PyTree:
        due = updates % self.period == 0
        return jax.tree.map(lambda o, t: jnp.where(due, o, t), online, target)


class Soft(TargetUpdate):
    """`θ⁻ ← rate · θ + (1 − rate) · θ⁻` after every update (Lillicrap et al. 2016)."""

    rate: Float[Array, ""] = leaf(0.005)

    def __check_init__(self) -> None:
        require(not concrete(self.rate) or 0 < self.rate <= 1, lambda: f"target.rate lies in (0, 1], not {self.rate}")

    def __call__(self, online: PyTree, target: PyTree, updates: Int[Array, ""]) -> PyTree:
        return jax.tree.map(lambda o, t: self.rate * o + (1.0 - self.rate) * t, online, target)
