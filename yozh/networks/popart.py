"""A network whose answers keep their worth while the scale on which they are learnt moves (van Hasselt et al. 2016)."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from yozh.networks.network import Network


class Rescaled(Network):
    """A network that says normalised values n, which stand for σ n + μ."""

    inner: Any
    """A network with a `QHead` as its `head`."""
    mean: Float[Array, ""]
    """μ"""
    square: Float[Array, ""]
    """ν, of which σ² = ν − μ²."""

    def embed(self, obs: PyTree) -> PyTree:
        return self.inner.embed(obs)

    def recur(self, x: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
        return self.inner.recur(x, memory)

    def read(self, x: PyTree, legal: Bool[Array, " n"] | None) -> PyTree:
        return self.inner.read(x, legal)

    def initial_memory(self) -> PyTree:
        return self.inner.initial_memory()

    def scale(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """μ and σ, the latter within [1e-4, 1e6]; no gradient."""
        sigma = jnp.sqrt(jnp.clip(self.square - self.mean**2, 1e-8, 1e12))
        return jax.lax.stop_gradient((self.mean, sigma))

    def moved(self, mean: Float[Array, ""], square: Float[Array, ""]) -> "Rescaled":
        """With other statistics, and a head that makes σ n + μ what it was: W ← W σ/σ', b ← (σ b + μ − μ')/σ'."""
        old_mean, old_sigma = self.scale()
        new = eqx.tree_at(lambda n: (n.mean, n.square), self, (mean, square))
        new_mean, new_sigma = new.scale()
        head = jax.tree.map(lambda x: x * (old_sigma / new_sigma), self.inner.head)
        layer = lambda h: (h.advantage if h.value is None else h.value).bias  # noqa: E731
        head = eqx.tree_at(layer, head, layer(head) + (old_mean - new_mean) / new_sigma)
        return eqx.tree_at(lambda n: n.inner.head, new, head)
