"""A ring of consecutive steps, which `Replay` and `PrioritisedReplay` draw their windows from."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from yozh.core import Unroll


class Ring(eqx.Module):
    """The last steps of B streams, and where to write the next one."""

    steps: PyTree
    """`[C, B, ...]`: step, action and extras of C consecutive moments of B streams."""
    head: Int[Array, ""]
    """The moment whose action is still to come; it is the newest one and ends the newest transition."""
    filled: Int[Array, ""]
    """Complete transitions of each stream, at most C-1."""

    @classmethod
    def empty(cls, example: Unroll, capacity: int, window: int) -> "Ring":
        """Room for `capacity` transitions of all streams together, and for one window at least."""
        streams = example.version.shape[0]
        moments = max(capacity // streams, window) + 1
        content = (example.step, example.action, example.extras)
        ring = jax.tree.map(lambda x: jnp.zeros((moments, *x.shape[1:]), x.dtype), content)
        return cls(ring, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    @property
    def moments(self) -> int:
        """C"""
        return jax.tree.leaves(self.steps)[0].shape[0]

    @property
    def streams(self) -> int:
        """B"""
        return jax.tree.leaves(self.steps)[0].shape[1]

    def add(self, unroll: Unroll) -> "Ring":
        """The unroll's first step takes the place of the newest one, whose action was still to come."""
        moments, length = self.moments, unroll.step.reward.shape[0] - 1
        if length == 1:
            where = jnp.stack([self.head, (self.head + 1) % moments])
            write = lambda ring, x: ring.at[where[0]].set(x[0]).at[where[1]].set(x[1])  # noqa: E731
        else:
            where = (self.head + jnp.arange(length + 1, dtype=jnp.int32)) % moments
            write = lambda ring, x: ring.at[where].set(x)  # noqa: E731
        steps = jax.tree.map(write, self.steps, (unroll.step, unroll.action, unroll.extras))
        return Ring(steps, (self.head + length) % moments, jnp.minimum(self.filled + length, moments - 1))

    def windows(self, start: Int[Array, " n"], stream: Int[Array, " n"], length: int) -> tuple[PyTree, PyTree, PyTree]:
        """Step, action and extras, `[length+1, n, ...]`, from these moments of these streams on."""
        where = (start[None] + jnp.arange(length + 1, dtype=jnp.int32)[:, None]) % self.moments
        return jax.tree.map(lambda ring: ring[where, stream[None]], self.steps)

    def sever(self) -> "Ring":
        """The newest step closes its episode, as a time limit would: what follows is bootstrapped from it, never through it."""
        step, action, extras = self.steps
        step = eqx.tree_at(lambda s: s.last, step, step.last.at[self.head].set(True))
        empty = self.filled == 0
        head = jnp.where(empty, self.head, (self.head + 1) % self.moments)
        filled = jnp.where(empty, 0, jnp.minimum(self.filled + 1, self.moments - 1))
        return Ring((step, action, extras), head, filled)
