"""Numbers drawn in proportion to themselves, at a cost that grows with the logarithm of how many there are."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

WIDTH = 32
"""Numbers under one sum: four levels for a million."""


class Sums(eqx.Module):
    """Non-negative numbers, the sums of blocks of them, the sums of blocks of those, up to a single block.

    Sums are taken anew from what lies under them, never added to, so that rounding does not pile up.
    """

    levels: tuple[Float[Array, " _"], ...]
    """The numbers first, each level padded with zeros to whole blocks."""

    @classmethod
    def zeros(cls, n: int) -> "Sums":
        levels = []
        while not levels or len(levels[-1]) > WIDTH:
            n = math.ceil(n / WIDTH)
            levels.append(jnp.zeros(n * WIDTH))
        return cls(tuple(levels))

    @classmethod
    def of(cls, numbers: Float[Array, " n"]) -> "Sums":
        """All sums anew. `numbers` are those of a level 0, padding included."""
        levels = [numbers]
        while len(levels[-1]) > WIDTH:
            sums = levels[-1].reshape(-1, WIDTH).sum(-1)
            levels.append(jnp.pad(sums, (0, -len(sums) % WIDTH)))
        return cls(tuple(levels))

    def __getitem__(self, place: Int[Array, " k"]) -> Float[Array, " k"]:
        return self.levels[0][place]

    def total(self) -> Float[Array, ""]:
        return self.levels[-1].sum()

    def put(self, place: Int[Array, " k"], x: Float[Array, " k"]) -> "Sums":
        """With new numbers; where a place comes twice, the larger one."""
        # 0 times x and not 0, so that what reads the old numbers comes before the write: else XLA copies them all
        levels = [self.levels[0].at[place].set(0.0 * x).at[place].max(x)]
        for level in self.levels[1:]:
            place = place // WIDTH
            sums = levels[-1].reshape(-1, WIDTH)[place].sum(-1)
            levels.append(level.at[place].set(sums))
        return Sums(tuple(levels))

    def find(self, share: Float[Array, " k"], digits: Float[Array, " k"]) -> Int[Array, " k"]:
        """Where the running sum of the numbers passes this share of the total, in [0, 1); never at a number that is 0.

        A share of 24 bits cannot tell apart the last few of a million numbers. `digits`, in [0, 1), are what stands behind its last
        one, and count where few numbers are left.
        """
        place = jnp.zeros(share.shape, jnp.int32)
        rest, unit = share * self.total(), self.total() * np.float32(2**-24)
        for level in reversed(self.levels):
            block = level.reshape(-1, WIDTH)[place]
            rest = rest + digits * unit if level is self.levels[0] else rest
            # a product with a triangle: a running sum of so few numbers takes longer
            reach = jnp.matmul(block, jnp.asarray(np.triu(np.ones((WIDTH, WIDTH), np.float32))), precision=lax.Precision.HIGHEST)  # fmt: skip
            reach = jnp.where(block > 0, reach, 0.0)
            # rounding may put the rest beyond the block, whose last number is then meant
            rest = jnp.minimum(rest, reach.max(-1) * np.float32(1 - 2**-23))
            number = jnp.arange(WIDTH, dtype=jnp.int32)[None]
            child = jnp.where(reach > rest[:, None], number, WIDTH).min(-1)  # `argmax` takes three times as long
            before = jnp.take_along_axis(reach - block, child[:, None], -1)[:, 0]
            rest = jnp.maximum(rest - before, 0.0)
            place = place * WIDTH + child
        return place
