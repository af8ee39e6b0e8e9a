"""The actor still learns where the critic does not, only slower: A2C on CartPole with its critic at several rates, down to 0.

At rate 0 the values stay as they were drawn. The advantage of n steps then is the reward that was seen less noise that does not depend on
the action, and a wrong bootstrap after n steps: the gradient points the right way with more variance and little foresight.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from yozh.agents import A2C
from yozh.agents.estimators import NStep
from yozh.core import AnyArray
from yozh.environments.batched import Vectorised
from yozh.environments.classic import CartPole
from yozh.runners import fused
from yozh.studies.study import Check, Outcome, drawn, main, panels

RATES = (1.0, 0.1, 0.0)
STEPS, POINTS = 100_000, 20
CHANCE = 22.0
"""Mean return of random actions."""


@functools.partial(jax.jit, static_argnames="repetitions")
def curves(agent: A2C, key: Key[Array, ""], repetitions: int) -> Float[Array, "seeds points"]:
    """Mean return of the episodes that ended since the point before."""
    env = Vectorised(CartPole(), agent.streams)
    turns = jnp.int32(STEPS // (POINTS * agent.length * agent.streams))

    def one(key: Key[Array, ""]) -> Float[Array, " points"]:
        def point(run: fused.Run, _: None) -> tuple[fused.Run, AnyArray]:
            run, metrics = fused.advance(agent, env, run, turns)
            return run, metrics.tally.returns / jnp.maximum(metrics.tally.episodes, 1).astype(jnp.float32)

        return jnp.asarray(jax.lax.scan(point, fused.init(agent, env, key), length=POINTS)[1])

    return jax.vmap(one)(jax.random.split(key, repetitions))


def run(repetitions: int = 10) -> Outcome:
    agents = {rate: A2C(critic_rate=rate, estimator=NStep(16), length=16, streams=8) for rate in RATES}
    found = {rate: np.asarray(curves(agent, jax.random.key(0), repetitions)) for rate, agent in agents.items()}
    last = {rate: float(x[:, -1].mean()) for rate, x in found.items()}
    total = {rate: float(x.mean()) for rate, x in found.items()}
    checks = [
        Check(f"mean return at {STEPS:,} steps, critic at rate {rate:g}", last[rate], low, 500.0)
        for rate, low in zip(RATES, (150.0, 3 * CHANCE, 3 * CHANCE), strict=True)
    ]
    checks.append(
        Check("a random critic's mean return over the run, of a learnt one's", total[0.0] / total[1.0], 0.1, 0.9)
    )
    figure, (axes,) = panels(1)
    steps = STEPS * np.arange(1, POINTS + 1) / POINTS
    for rate, x in found.items():
        axes.plot(steps, x.mean(0), label=f"critic at rate {rate:g}")
    axes.axhline(CHANCE, color="black", linewidth=0.8, linestyle=":")
    axes.set(title="A2C on CartPole", xlabel="steps", ylabel="mean return while training")
    axes.legend(frameon=False)
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("poor_critic", run, 10))
