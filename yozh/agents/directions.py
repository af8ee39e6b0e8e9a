"""In which directions a black-box search looks, and what it makes of what it finds there.

Each member i of a population of P tries the weights `θ + σ ε_i`; its score is the return of one episode.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from yozh.core import check_share, leaf, require

Scores = Float[Array, " P"]


class Directions(eqx.Module):
    def check(self, population: int) -> None:
        """Refuses populations of a wrong size."""
        require(population % 2 == 0, f"es: directions go in pairs, and {population} streams do not")

    def draw(self, key: Key[Array, ""], population: int, size: int) -> Float[Array, "P n"]:
        """ε: normal, and each direction with its opposite (antithetic sampling)."""
        half = jax.random.normal(key, (population // 2, size))
        return jnp.concatenate([half, -half])

    @abc.abstractmethod
    def weigh(self, scores: Scores, sigma: Float[Array, ""]) -> Scores:
        """u, with which the gradient is `Σ_i u_i ε_i`."""


class Ranks(Directions):
    """OpenAI's evolution strategies (Salimans et al. 2017): `u_i = rank_i / (P σ)`, ranks evenly spaced from -1/2 to 1/2.

    Only the order of the scores counts: an outlier moves nothing.
    """

    def weigh(self, scores: Scores, sigma: Float[Array, ""]) -> Scores:
        n = len(scores)
        below = jnp.sum((scores[None] < scores[:, None]).astype(jnp.float32), 1)
        level = jnp.sum((scores[None] == scores[:, None]).astype(jnp.float32), 1)
        return ((below + (level - 1.0) / 2.0) / (n - 1) - 0.5) / (n * sigma)


class Top(Directions):
    """Augmented random search (Mania et al. 2018): the best pairs only, each by the better of its two scores,
    `u_i = (r_i - r_i') / (2 b σ_R)`, where r' is the score of the opposite and σ_R the deviation of the 2b scores that are kept. σ itself
    is not divided by.

    The paper's r_i in place of half the difference has the same sum, but for rounding: where scores hardly differ, that is all there is.
    """

    share: Float[Array, ""] = leaf(0.5)
    """b over the number of pairs."""

    def __check_init__(self) -> None:
        check_share("es: share", self.share, "(0, 1]")

    def weigh(self, scores: Scores, sigma: Float[Array, ""]) -> Scores:
        pairs = len(scores) // 2
        one, other = scores[:pairs], scores[pairs:]
        kept = jnp.maximum(jnp.round(self.share * pairs), 1.0)
        place = jnp.argsort(jnp.argsort(-jnp.maximum(one, other)))  # one for each, level or not
        counts = (place.astype(jnp.float32) < kept).astype(jnp.float32)
        mean = jnp.sum(counts * (one + other)) / (2.0 * kept)
        deviation = jnp.sqrt(jnp.sum(counts * ((one - mean) ** 2 + (other - mean) ** 2)) / (2.0 * kept))
        weights = counts * (one - other) / (2.0 * kept * (deviation + 1e-8))
        return jnp.concatenate([weights, -weights])


class Differences(Directions):
    """Finite differences, the lectures' first idea: `∇J ≈ mean_i ε_i (J(θ + σ ε_i) - J(θ)) / σ`. The first member stays at θ.

    Noisy, the more so as both J are one episode each.
    """

    def check(self, population: int) -> None:
        require(population > 1, "es: differences need two streams or more")

    def draw(self, key: Key[Array, ""], population: int, size: int) -> Float[Array, "P n"]:
        others = jax.random.normal(key, (population - 1, size))
        return jnp.concatenate([jnp.zeros((1, size)), others])

    def weigh(self, scores: Scores, sigma: Float[Array, ""]) -> Scores:
        return (scores - scores[0]) / ((len(scores) - 1) * sigma)
