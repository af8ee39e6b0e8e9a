"""An actor-critic whose policy's trunk says a value too (Cobbe et al. 2021)."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Key, PyTree

from yozh.core import Spec
from yozh.networks.layers import Linear, linear
from yozh.networks.network import ActorCritic, Network


class Phasic(Network):
    """A policy and a value; with `tells`, also what a linear layer on the policy's features thinks the value is."""

    inner: ActorCritic
    auxiliary: Linear
    tells: bool = eqx.field(static=True, default=False)

    @classmethod
    def of(cls, inner: ActorCritic, spec: Spec, key: Key[Array, ""], init: str) -> "Phasic":
        return cls(inner, linear(inner.actor.size(spec), 1, jax.random.fold_in(key, 1), init=init, gain=1.0))

    def embed(self, obs: PyTree) -> PyTree:
        return self.inner.embed(obs)

    def recur(self, x: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
        return self.inner.recur(x, memory)

    def read(self, x: PyTree, legal: Bool[Array, " n"] | None) -> tuple[Any, ...]:
        said = self.inner.read(x, legal)
        return (*said, self.auxiliary(x[0])[0]) if self.tells else said

    def initial_memory(self) -> PyTree:
        return self.inner.initial_memory()
