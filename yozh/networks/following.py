"""A network of several answers, of which each episode follows one."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from yozh.networks.network import Network


class Following(Network):
    """A network to whose answers those of a fixed one are added, and whose memory holds one number more: which answer is
    followed, -1 where none is chosen yet."""

    inner: Any
    fixed: Any
    """Feed-forward; nothing is learnt here."""

    def embed(self, obs: PyTree) -> tuple[PyTree, PyTree]:
        return self.inner.embed(obs), jax.lax.stop_gradient(self.fixed).embed(obs)

    def recur(self, x: tuple[PyTree, PyTree], memory: tuple[PyTree, Int[Array, ""]]) -> tuple[PyTree, PyTree]:
        y, inner = self.inner.recur(x[0], memory[0])
        return (y, x[1]), (inner, memory[1])

    def read(self, x: tuple[PyTree, PyTree], legal: Bool[Array, " n"] | None) -> PyTree:
        return self.inner.read(x[0], legal) + jax.lax.stop_gradient(self.fixed).read(x[1], None)

    def initial_memory(self) -> tuple[PyTree, Int[Array, ""]]:
        return self.inner.initial_memory(), jnp.full((), -1, jnp.int32)
