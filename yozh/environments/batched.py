"""Many streams of a pure environment, with next-step auto-reset."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from yozh.core import BatchedEnv, Env, Spec, TimeStep, static


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
        state, step = self._map(lambda env, k: env.reset(k), jax.random.split(key, self.n))
        return (state, step.last), step

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        inner, last = state
        moved = self._map(lambda env, s, a, k: env.step(s, a, k), inner, action, jax.random.split(key, self.n))

        def renew(moved: Any) -> Any:
            opened = self._map(lambda env, k: env.reset(k), jax.random.split(jax.random.fold_in(key, 1), self.n))
            return jax.tree.map(lambda new, old: jnp.where(_like(last, new), new, old), opened, moved)

        # Most steps open no episode; the branch makes those pay nothing for `reset`, nor for its random numbers.
        inner, step = jax.lax.cond(last.any(), renew, lambda moved: moved, moved)
        return (inner, step.last), step

    def _map(self, f: Any, *xs: Any) -> Any:
        return jax.vmap(f, in_axes=(0 if self.varied else None, *(0 for _ in xs)))(self.env, *xs)


def _like(mask: Array, x: Array) -> Array:
    return mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
