"""What a memory is for, and how long a sequence must be for it to be learnt: a sign is shown once and told eight steps later.

Recurrent DQN learns from stretches of replay. Gradients flow through the memory from the first step of a stretch to its last and no
further: one of ten steps spans an episode of eight, and one of two must make do with what the stored memory happens to hold. Told is the
return of the greedy policy, 1 where the sign is always told right and 0 by guessing.
"""

import sys

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from yozh.agents import DQN
from yozh.agents.targets import Hard
from yozh.environments.batched import Vectorised
from yozh.environments.probes import Recall
from yozh.networks import GRU, Auto
from yozh.runners import evaluation
from yozh.runners.fused import Metrics, Run
from yozh.studies.study import Check, Outcome, drawn, main, panels, watched

LENGTH, STEPS, LOOKS, EPISODES, STREAMS = 8, 12_000, 30, 64, 8
WAYS = {
    "stretches of 10": dict(core=GRU(16), sequence=10),
    "10 after a burn-in of 4": dict(core=GRU(16), sequence=10, burn_in=4),
    "stretches of 2": dict(core=GRU(16), sequence=2),
    "no memory": {},
}


def returns(way: str, repetitions: int) -> Float[np.ndarray, "repetitions looks"]:
    """Mean return of the greedy policy after each stretch of training."""
    agent = DQN(learning_rate=3e-3, gamma=0.9, epsilon=0.5, target=Hard(20), torso=Auto((16,), "tanh"), batch=64, capacity=2000,
                warm_up=100, update_every=8, streams=STREAMS, **WAYS[way])  # fmt: skip
    env, judge = Vectorised(Recall(LENGTH), STREAMS), Vectorised(Recall(LENGTH), EPISODES)

    def look(run: Run, metrics: Metrics) -> Array:
        opened, params = judge.reset(jax.random.key(0)), agent.policy(run.state)
        return evaluation.episodes(agent, params, judge, *opened, jax.random.key(0), 1, False).returns.mean()

    def one(key: Key[Array, ""]) -> Array:
        return watched(agent, env, key, looks=LOOKS, turns=STEPS // LOOKS // STREAMS, look=look)[1]

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), repetitions)))


def run(repetitions: int = 6) -> Outcome:
    scores = {way: returns(way, repetitions) for way in WAYS}
    ten, burnt, two, none = (float(score.mean()) for score in scores.values())
    checks = [
        Check("return over the run, stretches of 10", ten, 0.9, 1.0),
        Check("the same after a burn-in of 4", burnt, 0.85, 1.0),
        Check("stretches of 2", two, -0.1, 0.75),
        Check("no memory", none, -0.1, 0.1),
    ]
    figure, (axes,) = panels(1)
    for name, score in scores.items():
        axes.plot(STEPS // LOOKS * np.arange(1, LOOKS + 1), score.mean(0), label=name)
    axes.set(
        title=f"a sign told {LENGTH} steps later", xlabel="environment steps", ylabel="mean return", ylim=(-0.3, 1.02)
    )
    axes.legend(frameon=False, fontsize=7)
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("recall", run, 6))
