"""How actions are drawn: small pytrees of parameters with leading axes `*b`, all with one set of methods."""

import abc
import math
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8, Int32, Key

from yozh.core import require, static
from yozh.losses import select


class Distribution(eqx.Module):
    """Over actions, one for each element of the leading axes."""

    @abc.abstractmethod
    def sample(self, key: Key[Array, ""]) -> Array:
        """`*b ...`: independent over the leading axes; differentiable in the parameters where continuous."""

    @abc.abstractmethod
    def log_prob(self, action: Array) -> Float[Array, "*b"]: ...

    @abc.abstractmethod
    def entropy(self) -> Float[Array, "*b"]: ...

    @abc.abstractmethod
    def mode(self) -> Array:
        """`*b ...`: the action to take without exploration."""

    @abc.abstractmethod
    def kl(self, other: Any) -> Float[Array, "*b"]:
        """`KL(self || other) = E_self[log self - log other]`, both of one class."""

    def sample_and_log_prob(self, key: Key[Array, ""]) -> tuple[Array, Float[Array, "*b"]]:
        action = self.sample(key)
        return action, self.log_prob(action)


def masked(logits: Float[Array, "*b n"], legal: Bool[Array, "*b n"]) -> Float[Array, "*b n"]:
    """Logits under which illegal actions have probability 0, are never drawn, and add nothing to entropy or gradient.

    A row without any legal action becomes uniform: finite, but its action must not count.
    """
    return jnp.where(legal, logits, jnp.finfo(logits.dtype).min)


class Categorical(Distribution):
    """One of n: `p = softmax(logits)`. Actions are int32 `[*b]`."""

    logits: Float[Array, "*b n"]
    """`[*b, n]`: finite (see `masked`)."""

    @property
    def log_probs(self) -> Float[Array, "*b n"]:
        return jax.nn.log_softmax(self.logits)

    def sample(self, key: Key[Array, ""]) -> Int32[Array, "*b"]:
        # The first whose cumulated probability passes one uniform draw: an n-th of the random numbers of Gumbel's way.
        reach = jnp.cumsum(jnp.exp(self.logits - jnp.max(self.logits, -1, keepdims=True)), axis=-1)
        draw = jax.random.uniform(key, self.logits.shape[:-1], self.logits.dtype)
        return jnp.argmax(reach > (draw * reach[..., -1])[..., None], -1).astype(jnp.int32)

    def log_prob(self, action: Int[Array, "*b"]) -> Float[Array, "*b"]:
        return select(self.log_probs, action)

    def entropy(self) -> Float[Array, "*b"]:
        return -jnp.sum(jnp.exp(self.log_probs) * self.log_probs, -1)

    def mode(self) -> Int32[Array, "*b"]:
        return jnp.argmax(self.logits, -1).astype(jnp.int32)

    def kl(self, other: "Categorical") -> Float[Array, "*b"]:
        return jnp.sum(jnp.exp(self.log_probs) * (self.log_probs - other.log_probs), -1)


def _total(parts: Iterable[Float[Array, "*b"]]) -> Float[Array, "*b"]:
    return jnp.sum(jnp.stack(list(parts)), 0)


class Factored(Distribution):
    """Independent choices, the i-th one of `ns[i]`. Actions are int32 `[*b, len(ns)]`."""

    logits: Float[Array, "*b n"]
    """`[*b, sum(ns)]`: of all choices, one after the other."""
    ns: tuple[int, ...] = static()

    def __check_init__(self):
        require(sum(self.ns) == self.logits.shape[-1], lambda: f"{self.logits.shape[-1]} logits for choices {self.ns}")

    def _split(self, logits: Float[Array, "*b n"]) -> list[Categorical]:
        return [Categorical(part) for part in jnp.split(logits, np.cumsum(self.ns)[:-1], -1)]

    def sample(self, key: Key[Array, ""]) -> Int32[Array, "*b k"]:
        noise = jax.random.gumbel(key, self.logits.shape, self.logits.dtype)
        return jnp.stack([part.mode() for part in self._split(self.logits + noise)], -1)

    def log_prob(self, action: Int[Array, "*b k"]) -> Float[Array, "*b"]:
        return _total(part.log_prob(action[..., i]) for i, part in enumerate(self._split(self.logits)))

    def entropy(self) -> Float[Array, "*b"]:
        return _total(part.entropy() for part in self._split(self.logits))

    def mode(self) -> Int32[Array, "*b k"]:
        return jnp.stack([part.mode() for part in self._split(self.logits)], -1)

    def kl(self, other: "Factored") -> Float[Array, "*b"]:
        return _total(p.kl(q) for p, q in zip(self._split(self.logits), other._split(other.logits), strict=True))


class Bernoulli(Distribution):
    """Independent bits: `p = sigmoid(logits)`. Actions are int8 `[*b, n]`."""

    logits: Float[Array, "*b n"]
    """`[*b, n]`"""

    def sample(self, key: Key[Array, ""]) -> Int8[Array, "*b n"]:
        return jax.random.bernoulli(key, jax.nn.sigmoid(self.logits)).astype(jnp.int8)

    def log_prob(self, action: Int[Array, "*b n"]) -> Float[Array, "*b"]:
        return jnp.sum(jax.nn.log_sigmoid(jnp.where(action != 0, self.logits, -self.logits)), -1)

    def entropy(self) -> Float[Array, "*b"]:
        one, zero = jax.nn.log_sigmoid(self.logits), jax.nn.log_sigmoid(-self.logits)
        return -jnp.sum(jnp.exp(one) * one + jnp.exp(zero) * zero, -1)

    def mode(self) -> Int8[Array, "*b n"]:
        return (self.logits > 0).astype(jnp.int8)

    def kl(self, other: "Bernoulli") -> Float[Array, "*b"]:
        one, zero = jax.nn.log_sigmoid(self.logits), jax.nn.log_sigmoid(-self.logits)
        other_one, other_zero = jax.nn.log_sigmoid(other.logits), jax.nn.log_sigmoid(-other.logits)
        return jnp.sum(jnp.exp(one) * (one - other_one) + jnp.exp(zero) * (zero - other_zero), -1)


class Normal(Distribution):
    """Independent normal components, summed over the last axis. Actions are float `[*b, d]`."""

    mean: Float[Array, "*b d"]
    """`[*b, d]`"""
    log_std: Float[Array, "*b d"]
    """`[*b, d]`"""

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*b d"]:
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def log_prob(self, action: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return -jnp.sum(0.5 * jnp.square(z) + self.log_std + 0.5 * math.log(2 * math.pi), -1)

    def entropy(self) -> Float[Array, "*b"]:
        return jnp.sum(self.log_std + 0.5 * math.log(2 * math.pi * math.e), -1)

    def mode(self) -> Float[Array, "*b d"]:
        return self.mean

    def kl(self, other: "Normal") -> Float[Array, "*b"]:
        wider = other.log_std - self.log_std
        apart = (self.mean - other.mean) * jnp.exp(-other.log_std)
        return jnp.sum(wider + 0.5 * (jnp.exp(-2 * wider) + jnp.square(apart) - 1.0), -1)


# 16 points: the entropy of a squashed component is right to 2e-5 up to a standard deviation of 1, 4e-3 at 2, .06 at 4
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(16)


def _log_slope(u: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """`log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u))`."""
    return 2.0 * (math.log(2) - u - jax.nn.softplus(-2.0 * u))


class TanhNormal(Distribution):
    """A normal `u` squashed: `a = (low + high) / 2 + (high - low) / 2 tanh(u)`. Actions are float `[*b, d]`.

    `log p(a) = log N(u) - sum log(1 - tanh(u)^2) - sum log((high - low) / 2)` (Haarnoja et al. 2018, appendix C).
    An action near a bound has lost the digits of its `u`: where the density of a fresh sample is wanted take
    `sample_and_log_prob`, which never inverts; `log_prob` moves actions 1e-7 of the half width away from the bounds.
    """

    mean: Float[Array, "*b d"]
    """`[*b, d]`: of `u`"""
    log_std: Float[Array, "*b d"]
    """`[*b, d]`: of `u`"""
    low: float | tuple[float, ...] = static(-1.0)
    """Finite; one number or d of them, as in `Box`."""
    high: float | tuple[float, ...] = static(1.0)

    @property
    def _normal(self) -> Normal:
        return Normal(self.mean, self.log_std)

    def _bounds(self) -> tuple[Float[Array, "*b d"], Float[Array, "*b d"]]:
        low, high = (jnp.broadcast_to(jnp.asarray(b, self.mean.dtype), self.mean.shape) for b in (self.low, self.high))
        return low, high

    def _squash(self, u: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        low, high = self._bounds()
        return jnp.clip(0.5 * (low + high) + 0.5 * (high - low) * jnp.tanh(u), low, high)

    def _log_prob(self, u: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        low, high = self._bounds()
        return self._normal.log_prob(u) - jnp.sum(_log_slope(u) + jnp.log(0.5 * (high - low)), -1)

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*b d"]:
        return self._squash(self._normal.sample(key))

    def log_prob(self, action: Float[Array, "*b d"]) -> Float[Array, "*b"]:
        low, high = self._bounds()
        edge = 1.0 - float(jnp.finfo(action.dtype).eps)
        return self._log_prob(jnp.arctanh(jnp.clip((2.0 * action - low - high) / (high - low), -edge, edge)))

    def sample_and_log_prob(self, key: Key[Array, ""]) -> tuple[Float[Array, "*b d"], Float[Array, "*b"]]:
        u = self._normal.sample(key)
        return self._squash(u), self._log_prob(u)

    def entropy(self) -> Float[Array, "*b"]:
        """`H(u) + E[log da/du]`, the expectation by Gauss-Hermite quadrature: it has no closed form.

        SAC's one-sample estimate is `-log_prob` out of `sample_and_log_prob`.
        """
        low, high = self._bounds()
        shape = (*(1,) * self.mean.ndim, len(NODES))
        nodes, weights = (jnp.asarray(x, self.mean.dtype).reshape(shape) for x in (NODES, WEIGHTS / WEIGHTS.sum()))
        slope = jnp.sum(weights * _log_slope(self.mean[..., None] + jnp.exp(self.log_std)[..., None] * nodes), -1)
        return self._normal.entropy() + jnp.sum(slope + jnp.log(0.5 * (high - low)), -1)

    def mode(self) -> Float[Array, "*b d"]:
        """The squashed mean, that is the median: the usual deterministic action, not the peak of the density."""
        return self._squash(self.mean)

    def kl(self, other: "TanhNormal") -> Float[Array, "*b"]:
        """That of the normals: squashing both into the same bounds changes nothing."""
        return self._normal.kl(other._normal)
