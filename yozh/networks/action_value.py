"""The value of an action that is a vector of real numbers, as a function of both."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

from yozh import spaces
from yozh.core import Spec, YozhError, static
from yozh.networks.cores import CoreBlueprint
from yozh.networks.layers import Linear, Perceptron, linear
from yozh.networks.network import Network, Trunk
from yozh.networks.torsos import Blueprint

WIDE = 1e6
"""Bounds at least so far apart say nothing of the scale of actions."""


class ActionValue(Network):
    """Q(s, a) of Box actions: `net((obs, action), memory) -> (number, memory)`. Bounded actions are seen on the scale of ±1.

    The action joins what the torso says of the observation, so that this may be any, images too, and the values of several actions
    of one step share its features (`embed` and `recur` once, `read` of each). With `torso=MLP(())` it joins a vector before the first
    layer. Two and more critics are one whose arrays lead with `[n]`: `jax.vmap` over keys to build it, over the network to ask it.
    """

    trunk: Trunk
    joint: Perceptron
    value: Linear
    action: spaces.Box = static()

    def __init__(self, torso: Blueprint, core: CoreBlueprint | None, spec: Spec, key: Key[Array, ""], *,
                 widths: tuple[int, ...] = (64,), activation: str = "relu", norm: bool = False):  # fmt: skip
        """`widths`: units of the layers in which features and action meet; with none, `()`, the value is linear in the action."""
        if not isinstance(spec.action, spaces.Box):
            raise YozhError(
                f"a value of one action takes Box actions, not {spaces.describe(spec.action)}; a QNetwork has one for each of n"
            )
        t, j, v = jax.random.split(key, 3)
        self.trunk = Trunk(torso, core, spec, t)
        size = self.trunk.size(spec) + math.prod(spec.action.shape)
        self.joint = Perceptron(size, widths, j, activation=activation, init=torso.heads, norm=norm)
        self.value = linear((size, *widths)[-1], 1, v, init=torso.heads, gain=1.0)
        self.action = spec.action

    def embed(self, obs: tuple[PyTree, Float[Array, "..."]]) -> tuple[Array, Array]:
        """Of an observation and an action together."""
        low, high = (b.astype(np.float64) for b in self.action.bounds())
        told = (high > low) & (high - low < WIDE)
        low, high = np.where(told, low, -1.0), np.where(told, high, 1.0)
        centre, half = ((high + low) / 2).astype(np.float32), ((high - low) / 2).astype(np.float32)
        return self.trunk.torso(obs[0]), ((obs[1] - centre) / half).ravel()

    def recur(self, x: tuple[Array, Array], memory: PyTree) -> tuple[PyTree, PyTree]:
        seen, memory = self.trunk.recur(x[0], memory)
        return (seen, x[1]), memory

    def read(self, x: tuple[Array, Array], legal: Bool[Array, " n"] | None) -> Float[Array, ""]:
        return self.value(self.joint(jnp.concatenate(x)))[0]

    def initial_memory(self) -> PyTree:
        return self.trunk.initial_memory()
