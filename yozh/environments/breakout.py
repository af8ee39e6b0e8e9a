"""Breakout, by the rules of MinAtar (Young and Tian 2019), equal to gymnax's step for step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from yozh.core import Env, Spec, TimeStep, restart, static, transition
from yozh.spaces import Box, Discrete

SIZE = 10
BRICKS = slice(1, 4)
"""Rows of the wall."""


class Court(NamedTuple):
    ball: Int[Array, "2"]
    """Row and column."""
    trail: Int[Array, "2"]
    """Where the ball was before."""
    course: Int[Array, "2"]
    """What is added to both at every step, 1 or -1."""
    paddle: Int[Array, ""]
    bricks: Bool[Array, "10 10"]
    struck: Bool[Array, ""]
    """Whether the ball met a brick in the last step; it then flies through the next one."""
    t: Int[Array, ""]


class Breakout(Env):
    """A ball flies along diagonals and takes bricks away, reward 1 each; the paddle keeps it from the floor, where the episode ends.

    When the last brick is gone the wall is built anew at the ball's next arrival below. Actions: stay, left, right. Observations
    are `bool [10, 10, 4]`: paddle, ball, trail, bricks. Written without indexed writes, which XLA takes one by one on a CPU.
    """

    limit: int = static(1000)

    @property
    def spec(self) -> Spec:
        return Spec(Box((SIZE, SIZE, 4), 0.0, 1.0, "bool"), Discrete(3), horizon=self.limit)

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        right = (jax.random.bits(key, (), jnp.uint32) & 1).astype(jnp.int32)  # a third of the draws of `randint`
        ball = jnp.stack([jnp.int32(3), (SIZE - 1) * right])
        course, nothing = jnp.stack([jnp.int32(1), 1 - 2 * right]), jnp.zeros((), jnp.int32)
        state = Court(ball, ball, course, jnp.int32(4), wall(), jnp.zeros((), bool), nothing)
        return state, restart(self.observe(state))

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        paddle = jnp.clip(state.paddle + (action == 2) - (action == 1), 0, SIZE - 1).astype(jnp.int32)
        row, column = state.ball
        down, right = state.course
        to_row, to_column = row + down, column + right
        side, ceiling = (to_column < 0) | (to_column >= SIZE), to_row < 0
        to_row, to_column = jnp.maximum(to_row, 0), jnp.clip(to_column, 0, SIZE - 1)
        at = cells() == to_row * SIZE + to_column
        met = ~ceiling & (at & state.bricks).any()
        hit = met & ~state.struck
        bricks = state.bricks & ~(at & hit)
        floor = ~met & (to_row == SIZE - 1)
        bricks = jnp.where(floor & ~bricks.any(), wall(), bricks)
        before = floor & (column == paddle)
        after = floor & ~before & (to_column == paddle)
        back = hit | before | after
        course = jnp.stack([jnp.where(ceiling | back, -down, down), jnp.where(side ^ after, -right, right)])
        ball = jnp.stack([jnp.where(back, row, to_row), to_column])
        t = state.t + 1
        state = Court(ball, state.ball, course, paddle, bricks, met, t)
        ended = floor & ~before & ~after
        return state, transition(self.observe(state), hit, terminated=ended, truncated=t >= self.limit)

    def observe(self, state: Court) -> Bool[Array, "10 10 4"]:
        marks = ((SIZE - 1) * SIZE + state.paddle, *(place[0] * SIZE + place[1] for place in (state.ball, state.trail)))
        return jnp.stack([*(cells() == mark for mark in marks), state.bricks], -1)


def cells() -> Int[Array, "10 10"]:
    """Their numbers, row by row."""
    return jnp.arange(SIZE * SIZE, dtype=jnp.int32).reshape(SIZE, SIZE)


def wall() -> Bool[Array, "10 10"]:
    return jnp.zeros((SIZE, SIZE), bool).at[BRICKS].set(True)
