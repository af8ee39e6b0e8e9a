"""What a distribution of returns is worth to the one who chooses, as a part."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from yozh.core import check_share, leaf


class Risk(eqx.Module):
    @abc.abstractmethod
    def __call__(self, worth: Float[Array, "*b n"], chance: Float[Array, "*b n"]) -> Float[Array, "*b"]:
        """From returns in ascending order and their chances."""


class Mean(Risk):
    """Indifferent to risk."""

    def __call__(self, worth: Float[Array, "*b n"], chance: Float[Array, "*b n"]) -> Float[Array, "*b"]:
        return jnp.sum(worth * chance, -1)


class Distortion(Risk):
    """The mean after the distribution function F became g(F) (Dabney et al. 2018b, section 3)."""

    @abc.abstractmethod
    def distort(self, level: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        """g, from [0, 1] onto itself, not falling."""

    def __call__(self, worth: Float[Array, "*b n"], chance: Float[Array, "*b n"]) -> Float[Array, "*b"]:
        level = self.distort(jnp.clip(jnp.cumsum(chance, axis=-1), 0.0, 1.0))
        before = jnp.concatenate([jnp.zeros_like(level[..., :1]), level[..., :-1]], -1)
        return jnp.sum(worth * (level - before), -1) / jnp.maximum(level[..., -1], 1e-6)


class CVaR(Distortion):
    """The mean of the worst share α of the returns: averse to risk, the more the smaller α."""

    alpha: Float[Array, ""] = leaf(0.25)

    def __check_init__(self) -> None:
        check_share("risk.alpha", self.alpha, "(0, 1]")

    def distort(self, level: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        return jnp.minimum(level / self.alpha, 1.0)


class Wang(Distortion):
    """g(F) = Φ(Φ⁻¹(F) − η) (Wang 2000): averse to risk below 0, seeking it above, and all returns count."""

    eta: Float[Array, ""] = leaf(-0.75)

    def distort(self, level: Float[Array, "*b n"]) -> Float[Array, "*b n"]:
        return norm.cdf(norm.ppf(level) - self.eta)


class MeanVariance(Risk):
    """The mean less k times the variance."""

    k: Float[Array, ""] = leaf(0.5)

    def __call__(self, worth: Float[Array, "*b n"], chance: Float[Array, "*b n"]) -> Float[Array, "*b"]:
        mean = jnp.sum(worth * chance, -1)
        return mean - self.k * jnp.sum(jnp.square(worth - mean[..., None]) * chance, -1)
