"""The largest of noisy values is bootstrapped from again and again: DQN promises more than it gets, double DQN less so.

Catch with five buttons for every move, to whose every reward a number drawn from N(0, 1) is added: neither changes what can be got, but
from 8,000 stored steps a network learns the noise as well, and the largest value is the one whose noise was kindest. Told is the mean
value of the chosen action over all states that the greedy policy visits, less the mean of the discounted rewards that followed
(van Hasselt et al. 2016, figure 3).
"""

import dataclasses
import sys

import jax
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from yozh.agents import DQN
from yozh.agents.targets import Hard
from yozh.core import Env, Spec, TimeStep, leaf
from yozh.environments.batched import Vectorised
from yozh.environments.catch import Catch
from yozh.networks import Auto
from yozh.runners import evaluation
from yozh.runners.fused import Metrics, Run
from yozh.studies.study import Buttons, Check, Outcome, drawn, main, panels, watched

STEPS, LOOKS, EPISODES = 32_000, 20, 50
BUTTONS = 5


class Noisy(Env):
    """Catch with noise of this deviation on its rewards."""

    deviation: Float[Array, ""] = leaf(1.0)
    clean: Catch = Catch()

    @property
    def spec(self) -> Spec:
        return self.clean.spec

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        return self.clean.reset(key)

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        state, step = self.clean.step(state, action, key)
        return state, dataclasses.replace(step, reward=step.reward + self.deviation * jax.random.normal(key))


def values(double: bool, repetitions: int) -> tuple[Float[np.ndarray, "repetitions looks"], Float[np.ndarray, "repetitions looks"]]:  # fmt: skip
    """What was predicted and what came, each the mean over the visited states."""
    agent = DQN(learning_rate=1e-3, epsilon=0.1, target=Hard(500), torso=Auto((64, 64), "relu", "uniform"), capacity=8000,
                update_every=2, double=double)  # fmt: skip
    env, judge = (Vectorised(Buttons(Noisy(x), BUTTONS), n) for x, n in ((1.0, agent.streams), (0.0, EPISODES)))
    turns = STEPS // LOOKS // (agent.streams * agent.experience.unroll)

    def look(run: Run, metrics: Metrics) -> tuple[Array, Array]:
        opened, params = judge.reset(jax.random.key(0)), agent.policy(run.state)
        found = evaluation.episodes(agent, params, judge, *opened, jax.random.key(0), 1, False).foresight
        assert found is not None, "DQN has values"
        return found.predicted.sum() / found.states.sum(), found.came.sum() / found.states.sum()

    def one(key: Key[Array, ""]) -> tuple[Array, Array]:
        return watched(agent, env, key, looks=LOOKS, turns=turns, look=look)[1]

    predicted, came = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), repetitions))
    return np.asarray(predicted), np.asarray(came)


def run(repetitions: int = 10) -> Outcome:
    figure, (axes,) = panels(1)
    late, at = slice(LOOKS // 2, None), STEPS // LOOKS * np.arange(1, LOOKS + 1)
    bias: dict[str, np.ndarray] = {}
    for name, double in (("DQN", False), ("double DQN", True)):
        predicted, came = values(double, repetitions)
        bias[name] = (predicted - came)[:, late].mean(1)
        (line,) = axes.plot(at, predicted.mean(0), label=f"{name}: predicted")
        axes.plot(at, came.mean(0), color=line.get_color(), linestyle=":", label=f"{name}: what came")
    axes.set(title="Catch with noisy rewards", xlabel="environment steps", ylabel="value of the chosen action")
    axes.legend(frameon=False, fontsize=7)
    checks = [
        Check("DQN: predicted less what came, second half, run with the least", bias["DQN"].min(), 0.3, np.inf),
        Check(
            "double DQN: mean of the same as a share of DQN's",
            bias["double DQN"].mean() / bias["DQN"].mean(),
            -1.0,
            0.85,
        ),
        Check("share of runs in which double DQN's is smaller", (bias["double DQN"] < bias["DQN"]).mean(), 0.8, 1.0),
    ]
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("overestimation", run, 10))
