"""Layers with learnt noise on their weights, which explore of themselves (Fortunato et al. 2018)."""

import abc
import math
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from yozh.core import check_positive, leaf, require

T = TypeVar("T")


class NoisyLinear(eqx.Module):
    """`y = (μ_w + σ_w ε_w) x + μ_b + σ_b ε_b`. Called, it gives the mean, ε = 0; `perturbed` draws ε."""

    weight: Float[Array, "*each outputs inputs"]
    """μ_w; of several layers side by side, each with a draw of its own, where more axes lead."""
    bias: Float[Array, "*each outputs"]
    """μ_b"""
    weight_sigma: Float[Array, "*each outputs inputs"]
    bias_sigma: Float[Array, "*each outputs"]
    noise: "type[Noise]" = eqx.field(static=True)

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        return x @ self.weight.T + self.bias

    @property
    def numbers(self) -> int:
        """How many its noise is made of."""
        *each, outputs, inputs = self.weight.shape
        return math.prod(each) * self.noise.numbers(outputs, inputs)

    def perturbed(self, x: Float[Array, " numbers"]) -> "NoisyLinear":
        """With ε, made of standard normal numbers, added to μ."""
        if self.weight.ndim > 2:
            return jax.vmap(NoisyLinear.perturbed)(self, x.reshape(len(self.weight), -1))
        by_weight, by_bias = self.noise.shaped(x, *self.weight.shape)
        moved = (self.weight + self.weight_sigma * by_weight, self.bias + self.bias_sigma * by_bias)
        return eqx.tree_at(lambda m: (m.weight, m.bias), self, moved)


class Noise(eqx.Module):
    """How the noise of a layer is drawn, and how large it is at first. A blueprint: `install` makes a module's layers noisy."""

    sigma: eqx.AbstractVar[Array]

    def __check_init__(self) -> None:
        check_positive("noisy.sigma", self.sigma)

    @abc.abstractmethod
    def first(self, inputs: int) -> Float[Array, ""]:
        """σ before anything is learnt."""

    @staticmethod
    @abc.abstractmethod
    def numbers(outputs: int, inputs: int) -> int:
        """How many normal numbers a layer takes."""

    @staticmethod
    @abc.abstractmethod
    def shaped(x: Float[Array, " numbers"], outputs: int, inputs: int) -> tuple[Float[Array, "outputs inputs"], Float[Array, " outputs"]]:  # fmt: skip
        """ε of the weights and of the biases."""

    def install(self, module: T) -> T:
        """The module (a torso, a head, a whole network) with noise on each of its fully connected layers."""

        def noisy(layer: Any) -> Any:
            if not isinstance(layer, eqx.nn.Linear):
                return layer
            sigma = self.first(layer.weight.shape[1])
            spread = (jnp.broadcast_to(sigma, layer.weight.shape), jnp.broadcast_to(sigma, layer.weight.shape[:1]))
            bias = jnp.zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias
            return NoisyLinear(layer.weight, bias, *spread, type(self))

        return jax.tree.map(noisy, module, is_leaf=lambda x: isinstance(x, eqx.nn.Linear))


class Factorised(Noise):
    """One draw for each input and each output, f(ε_i) f(ε_j) with f(x) = sgn(x) √|x| for a weight (eqs. 10 and 11)."""

    sigma: Float[Array, ""] = leaf(0.5)
    """σ₀: the first σ is σ₀/√inputs."""

    def first(self, inputs: int) -> Float[Array, ""]:
        return self.sigma / math.sqrt(inputs)

    @staticmethod
    def numbers(outputs: int, inputs: int) -> int:
        return outputs + inputs

    @staticmethod
    def shaped(x: Float[Array, " numbers"], outputs: int, inputs: int) -> tuple[Float[Array, "outputs inputs"], Float[Array, " outputs"]]:  # fmt: skip
        x = held(jnp.sign(x) * jnp.sqrt(jnp.abs(x)))
        return x[:outputs, None] * x[None, outputs:], x[:outputs]


class Independent(Noise):
    """A draw for each weight and each bias."""

    sigma: Float[Array, ""] = leaf(0.017)
    """The first σ."""

    def first(self, inputs: int) -> Float[Array, ""]:
        return self.sigma

    @staticmethod
    def numbers(outputs: int, inputs: int) -> int:
        return outputs * (inputs + 1)

    @staticmethod
    def shaped(x: Float[Array, " numbers"], outputs: int, inputs: int) -> tuple[Float[Array, "outputs inputs"], Float[Array, " outputs"]]:  # fmt: skip
        x = x.reshape(outputs, inputs + 1)
        return x[:, 1:], x[:, 0]


def held(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """The same numbers, behind a product. Otherwise XLA draws each anew for every weight that it is a factor of, at ten times the cost."""
    return jnp.stack([x, x], -1) @ jnp.array([1.0, 0.0])


def as_noise(noisy: Any) -> Noise | None:
    """`True` is the usual noise, `False` and `None` are none."""
    if isinstance(noisy, Noise):
        return noisy
    require(noisy is None or isinstance(noisy, bool), f"noisy is true, false or a Noise, not {noisy!r}")
    return Factorised() if noisy else None


def _is_noisy(x: Any) -> bool:
    return isinstance(x, NoisyLinear)


def perturbed(net: T, key: Key[Array, ""]) -> T:
    """The network with one draw of the noise of every noisy layer; itself where it has none.

    The draw belongs to the weights: all elements of a batch share it.
    """
    layers, tree = jax.tree.flatten(net, is_leaf=_is_noisy)
    if not any(map(_is_noisy, layers)):
        return net
    sizes = [x.numbers if _is_noisy(x) else 0 for x in layers]
    parts = jnp.split(jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    moved = [x.perturbed(part) if _is_noisy(x) else x for x, part in zip(layers, parts, strict=True)]
    return jax.tree.unflatten(tree, moved)


def mean_sigma(net: Any) -> Float[Array, ""]:
    """The mean of |σ| of all noisy layers' weights."""
    layers = [x for x in jax.tree.leaves(net, is_leaf=_is_noisy) if _is_noisy(x)]
    sizes = jnp.concatenate([jnp.abs(x.weight_sigma).ravel() for x in layers])
    return jnp.dot(sizes, jnp.full_like(sizes, 1 / sizes.size))  # a product, since XLA adds up a sum one by one
