"""Linear and convolutional layers with the two initialisations that the field uses."""

import math
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

T = TypeVar("T")
Layer = TypeVar("Layer", "Linear", "Convolution")
Norm = eqx.nn.LayerNorm | eqx.nn.Identity

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "elu": jax.nn.elu, "silu": jax.nn.silu, "gelu": jax.nn.gelu}


class Linear(eqx.nn.Linear):
    """`x Wᵀ + b`. Written as `W x`, XLA keeps batches of activations with the batch last, and copies them for the gradient: a turn
    of PPO on CartPole takes 1.56 ms so, and 1.38 ms this way."""

    bias: Array

    def __init__(self, inputs: int, outputs: int, key: Key[Array, ""]):
        super().__init__(inputs, outputs, key=key)

    def __call__(self, x: Float[Array, " inputs"], *, key: Any = None) -> Float[Array, " outputs"]:
        return x @ self.weight.T + self.bias


class Turned(eqx.Module):
    """A linear layer whose weight lies as `[inputs, outputs]`."""

    weight: Float[Array, "*each inputs outputs"]
    bias: Float[Array, "*each outputs"]

    def __call__(self, x: Float[Array, " inputs"], *, key: Any = None) -> Float[Array, " outputs"]:
        return x @ self.weight + self.bias


def turned(tree: T) -> T:
    """Networks for a loop that takes a few elements at a time: weights are turned once before it, and not at every step."""
    is_linear = lambda x: isinstance(x, Linear)  # noqa: E731
    return jax.tree.map(
        lambda x: Turned(x.weight.swapaxes(-1, -2), x.bias) if is_linear(x) else x, tree, is_leaf=is_linear
    )


class Convolution(eqx.nn.Conv2d):
    """Without padding, channels last: `[h, w, channels]` to `[h', w', outputs]`.

    On a CPU the patches are gathered and multiplied at once, since in the body of a loop XLA takes convolutions number by number:
    the gradient of MinAtar's network for 64 images takes 5 ms so, and 0.4 ms this way; of the Nature network for 32, 359 and 16 ms.
    """

    bias: Array

    def __init__(self, channels: int, outputs: int, kernel: int, stride: int, key: Key[Array, ""]):
        super().__init__(channels, outputs, kernel, stride, key=key)

    def __call__(self, x: Float[Array, "h w channels"], *, key: Any = None) -> Float[Array, "h2 w2 outputs"]:
        kernel = self.weight.transpose(2, 3, 1, 0)
        if jax.default_backend() == "cpu":
            y = self._patches(x) @ kernel.reshape(-1, self.out_channels)
        else:
            layout = ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(x[None], kernel, self.stride, "VALID", dimension_numbers=layout)[0]
        return y + self.bias.reshape(1, 1, -1)

    def _patches(self, x: Float[Array, "h w channels"]) -> Float[Array, "h2 w2 patch"]:
        (kh, kw), (sh, sw) = self.kernel_size, self.stride
        rows, columns = x.shape[0] - kh + 1, x.shape[1] - kw + 1
        return jnp.concatenate([x[i : i + rows : sh, j : j + columns : sw] for i in range(kh) for j in range(kw)], -1)


def linear(inputs: int, outputs: int, key: Key[Array, ""], *, init: str, gain: float = math.sqrt(2)) -> Linear:
    """A linear layer. `init` is `"orthogonal"` (of the given gain, zero bias; Saxe et al. 2014, PPO's choice) or
    `"uniform"` (weight and bias in ±1/√inputs, the default of PyTorch and Equinox, DQN's choice)."""
    return _initialised(Linear(inputs, outputs, key), key, init, gain)


def conv(channels: int, outputs: int, kernel: int, stride: int, key: Key[Array, ""], *, init: str) -> Convolution:
    return _initialised(Convolution(channels, outputs, kernel, stride, key), key, init, math.sqrt(2))


def _initialised(layer: Layer, key: Key[Array, ""], init: str, gain: float) -> Layer:
    if init == "uniform":
        return layer
    assert init == "orthogonal", init
    shape = layer.weight.shape
    weight = jax.nn.initializers.orthogonal(gain, column_axis=0)(key, (shape[0], math.prod(shape[1:])), jnp.float32)
    return eqx.tree_at(lambda m: (m.weight, m.bias), layer, (weight.reshape(shape), jnp.zeros_like(layer.bias)))


class Perceptron(eqx.Module):
    """Linear layers, each followed by the activation; with `norm`, by a layer norm first (Ba et al. 2016)."""

    layers: tuple[Linear, ...]
    norms: tuple[Norm, ...]
    activation: str = eqx.field(static=True)

    def __init__(self, inputs: int, widths: tuple[int, ...], key: Key[Array, ""], *, activation: str, init: str, norm: bool = False):  # fmt: skip
        sizes = (inputs, *widths)
        keys = jax.random.split(key, max(len(widths), 1))
        self.layers = tuple(linear(a, b, k, init=init) for a, b, k in zip(sizes[:-1], sizes[1:], keys, strict=False))
        self.norms = tuple(layer_norm((width,), norm) for width in widths)
        self.activation = activation

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " features"]:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = ACTIVATIONS[self.activation](norm(layer(x)))
        return x


def layer_norm(shape: tuple[int, ...], norm: bool) -> Norm:
    """Over all units of one layer, each with a gain and a bias; without `norm`, nothing."""
    return eqx.nn.LayerNorm(shape) if norm else eqx.nn.Identity()
