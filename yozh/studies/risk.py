"""What a mean does not tell: a return with two peaks, and a choice that the worst outcomes decide.

One state, three actions, each ends the episode: a coin that earns 1 or -1; a risk that earns 2, or -2 in one case of ten (mean 1.6); and
a safe 1. DQN learns each distribution from random actions, as C51, by quantile regression and by implicit quantiles. The mean
prefers the risk; the mean of the worst share α of the returns is 2 - 0.4 / α for it, less than 1 below α = 0.4.
"""

import dataclasses
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from yozh.agents import DQN
from yozh.agents.risks import CVaR, Risk
from yozh.agents.risks import Mean as Neutral
from yozh.agents.targets import Hard
from yozh.agents.values import C51, Distributional, ImplicitQuantile, Outcomes, QuantileRegression
from yozh.core import Env, Spec, TimeStep, restart, transition
from yozh.environments.batched import Vectorised
from yozh.networks import Auto
from yozh.runners.fused import Metrics, Run
from yozh.spaces import Box, Discrete
from yozh.studies.study import Check, Outcome, drawn, main, near, panels, watched

METHODS: dict[str, Distributional] = {
    "C51": C51(-3.0, 3.0, 61),
    "QR-DQN": QuantileRegression(50, kappa=0.01),
    "IQN": ImplicitQuantile(32, kappa=0.01),
}
RISKY, SAFE = 1, 2
MEANS = (0.0, 1.6, 1.0)
RISKS: dict[str, tuple[Risk, int]] = {
    "the mean": (Neutral(), RISKY),
    "CVaR 0.5": (CVaR(0.5), RISKY),
    "CVaR 0.25": (CVaR(0.25), SAFE),
    "CVaR 0.1": (CVaR(0.1), SAFE),
}
"""And what is to be chosen by it."""
WIDTH = 0.25
"""How far from a peak its mass may lie."""


class Lottery(Env):
    """The three actions."""

    @property
    def spec(self) -> Spec:
        return Spec(Box((1,), 0.0, 1.0), Discrete(3))

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        return jnp.zeros(()), restart(jnp.ones(1))

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        draw = jax.random.uniform(key)
        pays = jnp.stack([jnp.where(draw < 0.5, 1.0, -1.0), jnp.where(draw < 0.9, 2.0, -2.0), jnp.ones(())])
        return state, transition(jnp.ones(1), pays[action], terminated=True)


def learnt(values: Distributional, updates: int) -> tuple[Outcomes, dict[str, int]]:
    """The outcomes `[actions, n]`, and what is chosen by each measure of risk."""
    agent = DQN(learning_rate=1e-3, epsilon=1.0, torso=Auto((32,), "relu", "uniform"), target=Hard(1), values=values,
                batch=64, capacity=4000, warm_up=500, update_every=8)  # fmt: skip
    env = Vectorised(Lottery(), agent.streams)

    def look(run: Run, metrics: Metrics) -> None:
        """Nothing but the end is of interest."""

    run, _ = eqx.filter_jit(watched)(agent, env, jax.random.key(0), looks=1, turns=updates, look=look)
    params, no = agent.policy(run.state), jnp.zeros(1, bool)
    step = TimeStep(jnp.ones((1, 1)), jnp.zeros(1), jnp.ones(1), ~no, no)
    outcomes = agent.look(params.net, params, (), step, None)[0].outcomes
    chosen = {}
    for name, (risk, _) in RISKS.items():
        careful = dataclasses.replace(agent, values=dataclasses.replace(values, risk=risk))
        chosen[name] = int(careful.act(params, (), step, jax.random.key(0), explore=False)[0][0])
    return jax.tree.map(lambda x: x[0], outcomes), chosen


def run(updates: int = 3000) -> Outcome:
    checks, (figure, axes) = [], panels(len(METHODS))
    for (name, values), ax in zip(METHODS.items(), axes, strict=True):
        outcomes, chosen = learnt(values, updates)
        worth, chance = np.asarray(outcomes.worth), np.asarray(outcomes.chance)
        for peak in (-1.0, 1.0):
            mass = chance[0][np.abs(worth[0] - peak) < WIDTH].sum()
            checks.append(Check(f"{name}: mass of the coin about {peak:g}", mass, 0.45, 0.55))
        means = (worth * chance).sum(-1)
        checks += [
            near(f"{name}: mean of action {i}", mean, known, 0.15)
            for i, (mean, known) in enumerate(zip(means, MEANS, strict=True))
        ]
        checks += [
            Check(f"{name}: chosen by {risk}", float(chosen[risk]), float(best), float(best))
            for risk, (_, best) in RISKS.items()
        ]
        for i, label in enumerate(("coin", "risk", "safe")):
            order = np.argsort(worth[i])
            ax.step(worth[i][order], np.cumsum(chance[i][order]), where="post", label=label)
        ax.set(title=name, xlabel="return", ylabel="chance of as much or less", xlim=(-3, 3))
        ax.legend(frameon=False)
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("risk", run))
