"""Catch, by the rules of bsuite (Osband et al. 2020)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from yozh.core import Env, Spec, TimeStep, restart, static, transition
from yozh.spaces import Box, Discrete


class Board(NamedTuple):
    ball_x: Int[Array, ""]
    ball_y: Int[Array, ""]
    paddle: Int[Array, ""]


class Catch(Env):
    """A ball falls a row a step from a random column; the paddle moves left, stays or moves right to be under it.

    The episode ends when the ball reaches the paddle's row, after `rows - 1` steps, with reward 1 if caught, else -1.
    """

    rows: int = static(10)
    columns: int = static(5)

    @property
    def spec(self) -> Spec:
        return Spec(Box((self.rows, self.columns), 0.0, 1.0), Discrete(3), horizon=self.rows - 1)

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        middle = jnp.asarray(self.columns // 2, jnp.int32)
        state = Board(jax.random.randint(key, (), 0, self.columns), jnp.zeros((), jnp.int32), middle)
        return state, restart(self.observe(state))

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        paddle = jnp.clip(state.paddle + action - 1, 0, self.columns - 1)
        state = Board(state.ball_x, state.ball_y + 1, paddle)
        landed = state.ball_y == self.rows - 1
        reward = jnp.where(landed, jnp.where(paddle == state.ball_x, 1.0, -1.0), 0.0)
        return state, transition(self.observe(state), reward, terminated=landed)

    def observe(self, state: Board) -> Float[Array, "rows columns"]:
        """1 where the ball is, and where the paddle is."""
        cell = jnp.arange(self.rows * self.columns).reshape(self.rows, self.columns)
        ball = cell == state.ball_y * self.columns + state.ball_x
        return (ball | (cell == (self.rows - 1) * self.columns + state.paddle)).astype(jnp.float32)
