"""Deep sea, by the rules of bsuite (Osband et al. 2020)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from yozh.core import Env, Spec, TimeStep, require, restart, static, transition
from yozh.spaces import Box, Discrete


class Place(NamedTuple):
    row: Int[Array, ""]
    column: Int[Array, ""]


class DeepSea(Env):
    """A diver begins at the left, and sinks one of `size` rows a step, one column to the left or to the right. A step to the
    right costs 0.01 / size; who goes right every time finds 1 in the last corner: the best return is 0.99.

    Which of the two actions leads to the right differs from cell to cell, and is drawn from `seed`. Whoever acts at random
    needs 2^size episodes to see the treasure once. Observation: the cell; below the last row nothing.
    """

    size: int = static(10)
    seed: int = static(0)

    def __check_init__(self) -> None:
        require(self.size > 1, f"DeepSea: size must be 2 or more, not {self.size}")

    @property
    def spec(self) -> Spec:
        return Spec(Box((self.size, self.size), 0.0, 1.0), Discrete(2), horizon=self.size)

    @property
    def right(self) -> Bool[Array, "size size"]:
        """Where it is action 1 that leads to the right."""
        return jax.random.bernoulli(jax.random.key(self.seed), shape=(self.size, self.size))

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        place = Place(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))
        return place, restart(self._observe(place))

    def step(self, state: Place, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        right = (action == 1) == self.right[state.row, state.column]
        treasure = right & (state.column == self.size - 1)
        reward = jnp.where(right, -0.01 / self.size, 0.0) + treasure.astype(jnp.float32)
        column = jnp.clip(state.column + jnp.where(right, 1, -1), 0, self.size - 1)
        place = Place(state.row + 1, column)
        return place, transition(self._observe(place), reward, terminated=place.row == self.size)

    def _observe(self, place: Place) -> Float[Array, "size size"]:
        cell = jnp.arange(self.size * self.size).reshape(self.size, self.size)
        return (cell == place.row * self.size + place.column).astype(jnp.float32)
