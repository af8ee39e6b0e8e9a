"""Minibatches of an unroll that is gone through several times."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from yozh.core import require

S = TypeVar("S", bound="Sequences")
C = TypeVar("C")


class Sequences(eqx.Module):
    """What is learnt from an unroll: every leaf `[T, B, ...]`, but for the memory before the first step, `[B, ...]`."""

    weight: eqx.AbstractVar[Float[Array, "T B"]]
    memory: eqx.AbstractVar[PyTree]

    def apart(self: S) -> S:
        """Where nothing is remembered, T · B sequences of one step, `[1, T · B, ...]`; else themselves, whole."""
        if jax.tree.leaves(self.memory):
            return self
        return jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:]), self)

    def dealt(self: S, rows: Int[Array, " n"]) -> S:
        """These sequences."""
        # of one step without moving an axis, which XLA copies though nothing moves
        take = lambda x: x[0][rows][None] if x.shape[0] == 1 else x[:, rows]  # noqa: E731
        parts = jax.tree.map(take, eqx.tree_at(lambda s: s.memory, self, ()))
        return eqx.tree_at(lambda s: s.memory, parts, jax.tree.map(lambda m: m[rows], self.memory))

    def passes(self: S, update: Callable[[C, S], tuple[C, Any]], carry: C, epochs: int, minibatches: int, key: Key[Array, ""]) -> tuple[C, Any]:  # fmt: skip
        """Carries something through `update`, minibatch by minibatch, each epoch in another order; with it all that the updates
        had to say, `[epochs, minibatches, ...]`. Each is dealt when its turn comes: a whole epoch at once goes through memory twice."""

        def epoch(carry: C, key: Key[Array, ""]) -> tuple[C, Any]:
            order = shuffle(key, self.weight.shape[1]).reshape(minibatches, -1)
            return jax.lax.scan(lambda carry, rows: update(carry, self.dealt(rows)), carry, order)

        return jax.lax.scan(epoch, carry, jax.random.split(key, epochs))

    def thinned(self: S, n: int) -> S:
        """Every n-th sequence."""
        parts = jax.tree.map(lambda x: x[:, ::n], eqx.tree_at(lambda s: s.memory, self, ()))
        return eqx.tree_at(lambda s: s.memory, parts, jax.tree.map(lambda m: m[::n], self.memory))


def shuffle(key: Key[Array, ""], n: int) -> Int[Array, " n"]:
    """A random order of n numbers: random high bits are sorted, with the number itself in the low ones.

    One array to sort and no second to carry along: on a CPU a quarter of the time of `jax.random.permutation`.
    """
    low = (n - 1).bit_length()
    bits = jax.random.bits(key, (n,), jnp.uint32) >> low << low
    return (jnp.sort(bits | jnp.arange(n, dtype=jnp.uint32)) & jnp.uint32((1 << low) - 1)).astype(jnp.int32)


def check_sizes(name: str, *, streams: int, length: int, epochs: int, minibatches: int, whole: bool) -> None:
    """Refuses sizes of an agent that make no minibatches of equal size; `whole`: its sequences are not taken apart."""
    for field, size in (("streams", streams), ("length", length), ("epochs", epochs), ("minibatches", minibatches)):
        require(size > 0, f"{name}: {field} must be positive, not {size}")
    total, what = (streams, "streams") if whole else (streams * length, "steps")
    require(
        total % minibatches == 0,
        f"{name}: {minibatches} minibatches do not divide {total} {what}; sequences of a recurrent policy stay whole",
    )
