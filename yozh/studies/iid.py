"""One environment for eighty steps, or sixteen for five: as many samples, but those of one episode are alike.

A2C on CartPole, from equally many steps in batches of 80. Sixteen streams are in sixteen different places, and their batch says more of
all the states that the policy visits; with one stream, learning is worse and less sure.
The third in the race is the online learner, one stream and five steps, with sixteen times as many updates: quick, and some of its seeds
are stuck for long.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from yozh.agents import A2C
from yozh.environments.batched import Vectorised
from yozh.environments.classic import CartPole
from yozh.runners import fused
from yozh.studies.study import Check, Outcome, drawn, main, panels

AGENTS = {
    "16 streams × 5 steps": A2C(streams=16, length=5),
    "1 stream × 80 steps": A2C(streams=1, length=80),
    "1 stream × 5 steps": A2C(streams=1, length=5),
}
STEPS, POINTS = 400_000, 40


@functools.partial(jax.jit, static_argnames="name")
def learn(name: str, keys: Key[Array, " N"], turns: Int[Array, ""]) -> Float[Array, "N points"]:
    """Mean return of the episodes that ended in each fortieth of the steps, by seed."""
    agent = AGENTS[name]
    env = Vectorised(CartPole(), agent.streams)

    def one(key: Key[Array, ""]) -> Float[Array, " points"]:
        def go(run: fused.Run, _: None) -> tuple[fused.Run, Float[Array, ""]]:
            run, metrics = fused.advance(agent, env, run, turns)
            return run, metrics.tally.returns.sum() / jnp.maximum(metrics.tally.episodes.sum(), 1).astype(jnp.float32)

        return jax.lax.scan(go, fused.init(agent, env, key), length=POINTS)[1]

    return jax.lax.map(one, keys)


def run(repetitions: int = 8) -> Outcome:
    keys, found = jax.random.split(jax.random.key(400), repetitions), {}
    for name, agent in AGENTS.items():
        turns = STEPS // POINTS // agent.streams // agent.length
        found[name] = np.asarray(learn(name, keys, jnp.int32(turns)))
    late = {name: curve[:, -POINTS // 5 :].mean(1) for name, curve in found.items()}
    first, *others = late
    checks = [Check(f"{first}: mean return in the last fifth, the worst seed", float(late[first].min()), 450.0, 500.0)]
    for name in others:
        less = float(late[first].mean() - late[name].mean())
        checks.append(Check(f"{name}: mean return in the last fifth {late[name].mean():.0f}, less than that by", less, 0.0, 500.0))  # fmt: skip
        checks.append(Check(f"{name}: worst seed, less than the worst with {first} by", float(late[first].min() - late[name].min()), 0.0, 500.0))  # fmt: skip
    figure, axes = panels(len(found))
    steps = STEPS / 1000 * (np.arange(POINTS) + 0.5) / POINTS
    for one, (name, curve) in zip(axes, found.items(), strict=True):
        one.plot(steps, curve.T, color="C0", linewidth=0.6)
        one.plot(steps, curve.mean(0), color="black")
        one.set(title=name, xlabel="thousand steps", ylabel="return", ylim=(0, 510))
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("iid", run, 8))
