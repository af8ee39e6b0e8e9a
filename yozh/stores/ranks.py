"""The places of numbers in their order from the largest down, kept up to date without sorting."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

FINE = 5
"""Numbers that share an octave and the highest bits of their mantissa, this many, share a rank."""

LOWEST, OCTAVES = -32, 64


class Ranks(eqx.Module):
    """Positive numbers counted by size, in bins 1/32 of an octave wide; 0 stands for none."""

    numbers: Float[Array, " n"]
    counts: Int[Array, " bins"]

    @classmethod
    def empty(cls, n: int) -> "Ranks":
        return cls(jnp.zeros(n), jnp.zeros(OCTAVES << FINE, jnp.int32))

    def put(self, place: Int[Array, " k"], x: Float[Array, " k"], once: Bool[Array, " k"]) -> "Ranks":
        """With new numbers; a place that comes twice is marked `once`."""
        before = self.numbers[place]
        counts = self.counts.at[_bin(before)].add(-(once & (before > 0)).astype(jnp.int32))
        counts = counts.at[_bin(x)].add((once & (x > 0)).astype(jnp.int32))
        x = jnp.where(
            before >= 0, x, before
        )  # it is: but what is read must come before the write, or XLA copies everything
        return Ranks(self.numbers.at[place].set(x), counts)

    def of(self, x: Float[Array, " k"]) -> Float[Array, " k"]:
        """How many numbers are larger, and one more; those in the same bin share the mean of their ranks."""
        larger = jnp.cumsum(self.counts[::-1])[::-1] - self.counts
        rank = larger.astype(jnp.float32) + 0.5 * (self.counts + 1).astype(jnp.float32)
        return jnp.maximum(rank[_bin(x)], 1.0)


def _bin(x: Float[Array, " k"]) -> Int[Array, " k"]:
    """The exponent and the highest bits of the mantissa, as one whole number that grows with `x`."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32) >> (23 - FINE)
    return jnp.clip(bits - ((127 + LOWEST) << FINE), 0, (OCTAVES << FINE) - 1)
