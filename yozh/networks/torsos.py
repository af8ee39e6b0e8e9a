"""Torsos turn one observation into a vector of features.

A *blueprint* says how to build a torso for an observation space; it has no array leaves, so it is part of an agent's
structure. Any `eqx.Module` that maps one observation to a vector of features can stand in its place (its initial
weights are then those of the instance), and so can any function `(space, key) -> module`.
"""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from yozh import spaces
from yozh.core import YozhError, require, static
from yozh.networks.layers import ACTIVATIONS, Convolution, Norm, Perceptron, conv, layer_norm

Torso = Callable[[PyTree], Float[Array, " features"]]


class Blueprint(eqx.Module):
    """How to build a torso."""

    @property
    def heads(self) -> str:
        """How the layers of a policy, a value and an action's value begin that read its features."""
        return "orthogonal"

    @abc.abstractmethod
    def build(self, space: spaces.Space, key: Key[Array, ""]) -> Torso:
        """A module that maps one observation of the space to a vector."""


class _Vector(eqx.Module):
    """A flat vector of numbers from one leaf of an observation, then the layers."""

    layers: Perceptron
    space: spaces.Leaf = eqx.field(static=True)

    def __call__(self, obs: Array) -> Float[Array, " features"]:
        return self.layers(flatten(self.space, obs))


class _Convolutional(eqx.Module):
    convolutions: tuple[Convolution, ...]
    norms: tuple[Norm, ...]
    layers: Perceptron
    channel_last: bool = eqx.field(static=True)
    scale: float = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __call__(self, obs: Array) -> Float[Array, " features"]:
        x = obs if self.channel_last else jnp.moveaxis(obs, 0, -1)
        x = x.astype(jnp.float32) * self.scale
        for layer, norm in zip(self.convolutions, self.norms, strict=True):
            x = ACTIVATIONS[self.activation](norm(layer(x)))
        return self.layers(x.ravel())


class _Joined(eqx.Module):
    """One torso for each leaf of a Dict or Tuple, then a layer in which their features meet: without it what one entry says
    could not depend on another."""

    torsos: tuple[Torso, ...]
    meeting: Perceptron

    def __call__(self, obs: PyTree) -> Float[Array, " features"]:
        said = [t(x) for t, x in zip(self.torsos, jax.tree.leaves(obs), strict=True)]
        return self.meeting(jnp.concatenate(said))


def _joined(parts: "MLP | Auto", space: spaces.Space, key: Key[Array, ""]) -> _Joined:
    """The meeting layer is as wide as the last of a part; relu, since features of an image can be so large that tanh would hide
    all else."""
    leaves = list_leaves(space)
    *keys, last = jax.random.split(key, len(leaves) + 1)
    torsos = tuple(parts.build(s, k) for s, k in zip(leaves, keys, strict=True))
    size = sum(features(t, s) for t, s in zip(torsos, leaves, strict=True))
    settings = dict(activation="relu", init=parts.init, norm=parts.norm)
    return _Joined(torsos, Perceptron(size, parts.widths[-1:], last, **settings))


def features(torso: Torso, space: spaces.Space) -> int:
    """Length of the torso's answer to an observation of the space."""
    return jax.eval_shape(torso, jax.tree.map(jnp.asarray, spaces.zeros(space))).shape[0]


class _Layered(Blueprint):
    """A blueprint that says how its layers begin."""

    init: eqx.AbstractVar[str]

    @property
    def heads(self) -> str:
        return self.init


class MLP(_Layered):
    """Fully connected layers over the flattened observation; of a Dict or Tuple over each leaf, and a layer in which they
    meet."""

    widths: tuple[int, ...] = static((64, 64))
    """Units of each layer; with none, `()`, the head is linear in the observation, and where that is one-hot a table."""
    activation: str = static("tanh")
    """tanh, relu, elu, silu or gelu."""
    init: str = static("orthogonal")
    """`orthogonal` (PPO) or `uniform` (PyTorch's default, DQN)."""
    norm: bool = static(False)
    """A layer norm before each activation."""

    def __check_init__(self) -> None:
        check_layers(self.activation, self.init)

    def build(self, space: spaces.Space, key: Key[Array, ""]) -> Torso:
        if isinstance(space, spaces.Dict | spaces.Tuple):
            return _joined(self, space, key)
        (key,) = jax.random.split(key, 1)
        size = flat_size(space)
        layers = Perceptron(size, self.widths, key, activation=self.activation, init=self.init, norm=self.norm)
        return _Vector(layers, space)


class CNN(_Layered):
    """Convolutions, then fully connected layers. The channel axis is the shorter of the first and the last."""

    channels: tuple[int, ...] = static((32, 64, 64))
    kernels: tuple[int, ...] = static((8, 4, 3))
    strides: tuple[int, ...] = static((4, 2, 1))
    widths: tuple[int, ...] = static((512,))
    activation: str = static("relu")
    init: str = static("orthogonal")
    norm: bool = static(False)
    """A layer norm before each activation, over all channels and places of a convolution."""

    def __check_init__(self) -> None:
        check_layers(self.activation, self.init)
        require(
            len(self.channels) == len(self.kernels) == len(self.strides),
            f"CNN: channels {self.channels}, kernels {self.kernels} and strides {self.strides} differ in length",
        )

    @classmethod
    def nature(cls, **settings: Any) -> "CNN":
        """The network of Mnih et al. 2015 (Nature), for 84x84 images."""
        return cls(**settings)

    @classmethod
    def minatar(cls, **settings: Any) -> "CNN":
        """The network of Young and Tian 2019 (MinAtar), for 10x10 images."""
        return cls(channels=(16,), kernels=(3,), strides=(1,), widths=(128,), **settings)

    def build(self, space: spaces.Space, key: Key[Array, ""]) -> Torso:
        if not (isinstance(space, spaces.Box) and len(space.shape) == 3):
            raise YozhError(f"CNN takes a Box of three axes, not {spaces.describe(space)}")
        channel_last = space.shape[-1] <= space.shape[0]
        channels, size = (space.shape[-1], space.shape[:2]) if channel_last else (space.shape[0], space.shape[1:])
        *keys, last = jax.random.split(key, len(self.channels) + 1)
        layers, norms = [], []
        for outputs, kernel, stride, k in zip(self.channels, self.kernels, self.strides, keys, strict=True):
            layers.append(conv(channels, outputs, kernel, stride, k, init=self.init))
            channels, size = outputs, tuple((n - kernel) // stride + 1 for n in size)
            require(min(size) > 0, f"CNN: images of {space.shape} are too small for kernels {self.kernels}")
            norms.append(layer_norm((*size, outputs), self.norm))
        inputs = channels * math.prod(size)
        head = Perceptron(inputs, self.widths, last, activation=self.activation, init=self.init, norm=self.norm)
        scale = 1 / 255 if space.dtype == "uint8" else 1.0
        return _Convolutional(tuple(layers), tuple(norms), head, channel_last, scale, self.activation)


class Auto(_Layered):
    """What the space asks for: the Nature CNN for large images, MinAtar's for small ones, an MLP for all else, and for a
    Dict or Tuple one torso a leaf and a layer in which they meet."""

    widths: tuple[int, ...] = static((64, 64))
    """Units of each layer of the MLP."""
    activation: str = static("tanh")
    """Of the MLP: tanh, relu, elu, silu or gelu."""
    init: str = static("orthogonal")
    """`orthogonal` (PPO) or `uniform` (PyTorch's default, DQN)."""
    norm: bool = static(False)
    """A layer norm before each activation, of whichever torso it is."""

    def __check_init__(self) -> None:
        check_layers(self.activation, self.init)

    def build(self, space: spaces.Space, key: Key[Array, ""]) -> Torso:
        if isinstance(space, spaces.Dict | spaces.Tuple):
            return _joined(self, space, key)
        if isinstance(space, spaces.Box) and len(space.shape) == 3:
            image = sorted(space.shape)[1]
            if image >= 36:
                return CNN.nature(init=self.init, norm=self.norm).build(space, key)
            if 3 <= image <= 16:
                return CNN.minatar(init=self.init, norm=self.norm).build(space, key)
        return MLP(self.widths, self.activation, self.init, self.norm).build(space, key)


class Ready(Blueprint):
    """A torso that exists already."""

    module: Torso

    def build(self, space: spaces.Space, key: Key[Array, ""]) -> Torso:
        return self.module


class _Function(Blueprint):
    function: Callable[[spaces.Space, Key[Array, ""]], Torso] = static()

    def build(self, space: spaces.Space, key: Key[Array, ""]) -> Torso:
        return self.function(space, key)


def as_blueprint(torso: Any) -> Blueprint:
    """A blueprint from what a user may hand over: a blueprint, a module, or a function `(space, key) -> module`."""
    if isinstance(torso, Blueprint):
        return torso
    if isinstance(torso, eqx.Module):
        return Ready(torso)
    require(
        callable(torso), f"a torso is a blueprint, an eqx.Module or a function (space, key) -> module, not {torso!r}"
    )
    return _Function(torso)


def check_layers(activation: str, init: str) -> None:
    require(activation in ACTIVATIONS, f"unknown activation {activation!r}; there are {', '.join(ACTIVATIONS)}")
    require(init in ("orthogonal", "uniform"), f"unknown init {init!r}; there are orthogonal, uniform")


def list_leaves(space: spaces.Space) -> list[spaces.Leaf]:
    return jax.tree.leaves(spaces.map_leaves(lambda s: s, space), is_leaf=lambda x: isinstance(x, spaces.Leaf))


def flat_size(space: spaces.Leaf) -> int:
    """Length of `flatten`'s answer."""
    match space:
        case spaces.Discrete(n):
            return n
        case spaces.MultiDiscrete(ns):
            return sum(ns)
        case _:
            return math.prod(space.shape)


def flatten(space: spaces.Leaf, obs: Array) -> Float[Array, " size"]:
    """One leaf of an observation as a vector of floats: integers one-hot, bytes in [0, 1], all else as it is."""
    match space:
        case spaces.Discrete(n):
            return jax.nn.one_hot(obs, n)
        case spaces.MultiDiscrete(ns):
            return jnp.concatenate([jax.nn.one_hot(obs[i], n) for i, n in enumerate(ns)])
        case _:
            x = jnp.asarray(obs).astype(jnp.float32).ravel()
            return x * np.float32(1 / 255) if space.dtype == "uint8" else x
