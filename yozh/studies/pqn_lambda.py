"""How far ahead PQN looks before it trusts its own values, which no target network holds still.

Its preset for CartPole, and the same with other λ: 0 is Q-learning of one step, 1 bootstraps only where the episode is cut or the unroll
ends. Told is the mean return of the greedy policy while it learns.
"""

import dataclasses
import sys

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Key

from yozh import presets
from yozh.agents import PQN
from yozh.agents.schedules import over
from yozh.environments.batched import Vectorised
from yozh.environments.classic import CartPole
from yozh.runners import evaluation
from yozh.runners.fused import Metrics, Run
from yozh.studies.study import Check, Outcome, drawn, main, panels, watched

AGENT = presets.find("pqn", "CartPole-v1").agent
LAMBDAS, LOOKS, TURNS, EPISODES = (0.0, 0.65, 0.95, 1.0), 16, 8, 32
STEPS = LOOKS * TURNS * AGENT.experience.streams * AGENT.experience.unroll


@eqx.filter_jit
def learn(agent: PQN, keys: Key[Array, " N"]) -> Float[Array, "N looks"]:
    """Mean return of the greedy policy after each stretch of training, by seed."""
    env, judge = Vectorised(CartPole(), agent.streams), Vectorised(CartPole(), EPISODES)

    def look(run: Run, metrics: Metrics) -> Float[Array, ""]:
        opened, params = judge.reset(jax.random.key(0)), agent.policy(run.state)
        return evaluation.episodes(agent, params, judge, *opened, jax.random.key(0), 1, False).returns.mean()

    return jax.lax.map(lambda key: watched(agent, env, key, looks=LOOKS, turns=TURNS, look=look)[1], keys)


def run(repetitions: int = 5) -> Outcome:
    keys = jax.random.split(jax.random.key(400), repetitions)
    found = {lam: np.asarray(learn(over(dataclasses.replace(AGENT, lam=lam), STEPS), keys)) for lam in LAMBDAS}
    late = {lam: float(curve[:, LOOKS // 2 :].mean()) for lam, curve in found.items()}
    one, *more = LAMBDAS
    checks = [Check(f"λ = {lam:g}: mean return over the second half", late[lam], 420.0, 500.0) for lam in more]
    checks.append(Check(f"λ = {one:g}: the same", late[one], 9.0, 350.0))
    figure, axes = panels(len(found))
    steps = STEPS / LOOKS / 1000 * np.arange(1, LOOKS + 1)
    for ax, (lam, curve) in zip(axes, found.items(), strict=True):
        ax.plot(steps, curve.T, color="C0", linewidth=0.6)
        ax.plot(steps, curve.mean(0), color="black")
        ax.set(title=f"λ = {lam:g}", xlabel="thousand steps", ylabel="return", ylim=(0, 510))
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("pqn_lambda", run, 5))
