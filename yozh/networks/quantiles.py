"""The network of implicit quantile regression (Dabney et al. 2018b)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

from yozh.core import Spec
from yozh.networks.cores import CoreBlueprint
from yozh.networks.heads import QHead
from yozh.networks.layers import Linear, linear
from yozh.networks.network import Network, Trunk, masked_values
from yozh.networks.torsos import Blueprint


class QuantileNetwork(Network):
    """The quantiles of every action's return at the fractions τ that it is asked for, `[actions, n]`: f(ψ(s) ⊙ φ(τ)).

    What it embeds is a pair: the observation, and the fractions `[n]`.
    """

    trunk: Trunk
    cosines: Linear
    """φ(τ) = ReLU(Σ_i w_i cos(π i τ) + b), eq. 4, from `size` cosines (i from 0)."""
    head: QHead
    size: int = eqx.field(static=True)

    def __init__(self, torso: Blueprint, core: CoreBlueprint | None, spec: Spec, key: Key[Array, ""], *,
                 actions: int, dueling: bool, size: int):  # fmt: skip
        t, h, c = jax.random.split(key, 3)
        self.trunk = Trunk(torso, core, spec, t)
        features = self.trunk.size(spec)
        self.cosines = linear(size, features, c, init="uniform")
        self.head = QHead(actions, features, h, init="uniform", dueling=dueling)
        self.size = size

    def embed(self, obs: tuple[PyTree, Float[Array, " n"]]) -> tuple[Array, Float[Array, " n"]]:
        return self.trunk.torso(obs[0]), obs[1]

    def recur(self, x: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
        features, memory = self.trunk.recur(x[0], memory)
        return (features, x[1]), memory

    def read(self, x: tuple[Array, Float[Array, " n"]], legal: Bool[Array, " actions"] | None) -> Float[Array, "actions n"]:  # fmt: skip
        features, fraction = x
        angles = np.pi * np.arange(self.size, dtype=np.float32)[None] * fraction[:, None]
        waves = jax.nn.relu(jax.vmap(self.cosines)(jnp.cos(angles)))
        return masked_values(jax.vmap(self.head)(features[None] * waves).T, legal)

    def initial_memory(self) -> PyTree:
        return self.trunk.initial_memory()
