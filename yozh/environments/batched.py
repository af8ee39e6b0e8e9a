"""Many streams of a pure environment, with next-step auto-reset."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from yozh.core import BatchedEnv, Env, Spec, TimeStep, static


class Streams(eqx.Module):
    """The state of a `Vectorised`."""

    inner: PyTree
    """`[n, ...]`: of the environments."""
    last: Bool[Array, " n"]
    """Which streams reset next."""
    key: Key[Array, ""]
    time: Int[Array, ""]
    """Steps since `reset`. With the key it numbers the draws, so that steps which need none pay for none."""


class Vectorised(BatchedEnv):
    """`n` streams of a pure environment.

    The parameters of `env` are shared by the streams; for streams that differ, give `env` as made by `jax.vmap` of its
    constructor and set `varied`: every leaf then leads with `[n]`.
    """

    env: Env
    n: int = static()
    varied: bool = static(False)

    @property
    def spec(self) -> Spec:
        return self.env.spec

    @property
    def batch(self) -> int:
        return self.n

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        key, first = jax.random.split(key)
        inner, step = self._map(lambda env, k: env.reset(k), jax.random.split(first, self.n))
        return Streams(inner, step.last, key, jnp.zeros((), jnp.int32)), step

    def step(self, state: Streams, action: PyTree) -> tuple[Streams, TimeStep]:
        def keys(draw: int) -> Key[Array, " n"]:
            return jax.random.split(jax.random.fold_in(state.key, 2 * state.time + draw), self.n)

        def renew(moved: Any) -> Any:
            opened = self._map(lambda env, k: env.reset(k), keys(1))
            return jax.tree.map(lambda new, old: jnp.where(_like(state.last, new), new, old), opened, moved)

        moved = self._map(lambda env, s, a, k: env.step(s, a, k), state.inner, action, keys(0))
        # Most steps open no episode; the branch makes those pay nothing for `reset`, nor for its random numbers.
        inner, step = jax.lax.cond(state.last.any(), renew, lambda moved: moved, moved)
        return Streams(inner, step.last, state.key, state.time + 1), step

    def _map(self, f: Any, *xs: Any) -> Any:
        return jax.vmap(f, in_axes=(0 if self.varied else None, *(0 for _ in xs)))(self.env, *xs)


def _like(mask: Array, x: Array) -> Array:
    return mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
