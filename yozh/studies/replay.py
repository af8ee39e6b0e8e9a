"""What a replay is for: without one, an environment's steps resemble each other, and what they do not show is forgotten.

Catch without an end, whose balls fall a hundred times in one column before it is drawn anew. DQN learns from the last 20,000
steps or from the newest ones only, of one environment or of 32 side by side; all four take as many steps, and as many updates of as
many transitions. Told is the return of the greedy policy in Catch as it is, all columns alike.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from yozh.agents import DQN
from yozh.agents.targets import Soft
from yozh.core import Env, Spec, TimeStep, transition
from yozh.environments.batched import Vectorised
from yozh.environments.catch import Catch
from yozh.networks import Auto
from yozh.runners import evaluation
from yozh.runners.fused import Metrics, Run
from yozh.studies.study import Check, Outcome, drawn, main, panels, watched

STEPS, LOOKS, EPISODES = 38_400, 30, 50
STREAK = 100
"""Balls in one column."""
WAYS = {
    "replay, 1 environment": (1, 20_000),
    "replay, 32 environments": (32, 20_000),
    "newest steps, 1 environment": (1, 32),
    "newest steps, 32 environments": (32, 64),
}
"""Streams, and the steps that are kept: the batch at least, and two of each stream."""


class Streaks(Env):
    """One ball after the other without an end, so many in one column; the first streak is a part of one, else all streams would
    change columns at once."""

    catch: Catch = Catch()

    @property
    def spec(self) -> Spec:
        return self.catch.spec

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        board, step = self.catch.reset(key)
        return (board, jax.random.randint(jax.random.fold_in(key, 1), (), 0, STREAK)), step

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        board, step = self.catch.step(state[0], action, key)
        fresh, _ = self.catch.reset(key)
        caught = (state[1] + step.last.astype(jnp.int32)) % STREAK
        column = jnp.where(caught == 0, fresh.ball_x, board.ball_x)
        board = jax.tree.map(lambda new, old: jnp.where(step.last, new, old), fresh._replace(ball_x=column), board)
        return (board, caught), transition(self.catch.observe(board), step.reward, terminated=False)


def returns(streams: int, capacity: int, repetitions: int) -> Float[np.ndarray, "repetitions looks"]:
    """Mean return of the greedy policy after each stretch of training."""
    agent = DQN(learning_rate=1e-3, epsilon=0.1, target=Soft(0.01), torso=Auto((64,), "relu", "uniform"), batch=32,
                capacity=capacity, warm_up=0, update_every=2, streams=streams)  # fmt: skip
    env, judge = Vectorised(Streaks(), streams), Vectorised(Catch(), EPISODES)
    turns = STEPS // LOOKS // (streams * agent.experience.unroll)

    def look(run: Run, metrics: Metrics) -> Array:
        opened, params = judge.reset(jax.random.key(0)), agent.policy(run.state)
        return evaluation.episodes(agent, params, judge, *opened, jax.random.key(0), 1, False).returns.mean()

    def one(key: Key[Array, ""]) -> Array:
        return watched(agent, env, key, looks=LOOKS, turns=turns, look=look)[1]

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), repetitions)))


def forgotten(score: Float[np.ndarray, "repetitions looks"]) -> float:
    """How far the return fell below what it had been before, at the most, averaged over the runs."""
    return float((np.maximum.accumulate(score, 1) - score).max(1).mean())


def run(repetitions: int = 10) -> Outcome:
    scores = {name: returns(*way, repetitions) for name, way in WAYS.items()}
    one, many, newest_one, newest_many = scores.values()
    late = slice(-LOOKS // 4, None)
    checks = [
        Check("replay, 1 environment: return over the last quarter", one[:, late].mean(), 0.9, 1.0),
        Check("replay, 32 environments: the same", many[:, late].mean(), 0.9, 1.0),
        Check("newest steps, 1 environment: the same", newest_one[:, late].mean(), -1.0, 0.85),
        Check("replay, 1 environment: deepest fall below a return reached before", forgotten(one), 0.0, 0.4),
        Check("newest steps, 1 environment: the same", forgotten(newest_one), 0.6, 2.0),
        Check("newest steps: more over the whole run with 32 environments than with one by",
              (newest_many - newest_one).mean(), 0.2, 2.0),
    ]  # fmt: skip
    figure, (axes,) = panels(1)
    for name, score in scores.items():
        axes.plot(STEPS // LOOKS * np.arange(1, LOOKS + 1), score.mean(0), label=name)
    axes.set(
        title="Catch, learnt in streaks of one column", xlabel="environment steps", ylabel="mean return", ylim=(-1, 1)
    )
    axes.legend(frameon=False, fontsize=7)
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("replay", run, 10))
