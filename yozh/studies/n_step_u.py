"""How many steps before the bootstrap: with few the target leans on wrong values, with many it is noisy (a U with its bottom at 4).

The 19-state random walk of Sutton & Barto 2018, figure 7.2: root mean squared error over the states, averaged over the first ten
episodes and all runs, of n-step TD at the best step size of the grid.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from yozh.core import require
from yozh.studies.study import Check, Outcome, drawn, main, near, panels
from yozh.tabular import TD, evaluate, follow, learn, linear, n_step, problems
from yozh.tabular.mdp import Trajectory

KNOWN = {1: 0.348, 2: 0.282, 4: 0.270, 8: 0.284, 16: 0.324, 64: 0.418}
ALPHAS = (0.05, *(i / 10 for i in range(1, 11)))
EPISODES, STEPS, AT_ONCE = 10, 2500, 250
WALK = problems.random_walk(19)
POLICY = np.full((21, 2), 0.5)


@functools.partial(jax.jit, static_argnames="n")
def errors(n: int, alpha: Float[Array, ""], walks: Trajectory) -> Float[Array, " runs"]:
    """Root mean squared error, averaged over the episodes' ends."""
    truth = jnp.asarray(evaluate(WALK, POLICY, 1.0), jnp.float32)[None, 1:-1]

    def one(walk: Trajectory) -> Float[Array, ""]:
        found = learn(TD(alpha), jnp.zeros(21), n_step(linear(walk, np.eye(21), 1.0), n)).w[:, 1:-1]
        error = jnp.sqrt(jnp.mean((found - truth) ** 2, 1))
        end = walk.discount_t == 0
        return jnp.sum(jnp.where(end & (jnp.cumsum(end) <= EPISODES), error, 0.0)) / EPISODES

    return jax.vmap(one)(walks)


def table(repetitions: int) -> Float[np.ndarray, "n alphas"]:
    """Mean error by n and step size."""
    walking = jax.jit(jax.vmap(lambda key: follow(WALK, POLICY, STEPS, key)))
    total = np.zeros((len(KNOWN), len(ALPHAS)))
    keys = jax.random.split(jax.random.key(0), repetitions)
    for i in range(0, repetitions, AT_ONCE):
        walks = walking(keys[i : i + AT_ONCE])
        require(
            bool(((walks.discount_t == 0).sum(1) >= EPISODES).all()), f"{STEPS:,} steps hold fewer than ten episodes"
        )
        total += [[float(errors(n, jnp.float32(alpha), walks).sum()) for alpha in ALPHAS] for n in KNOWN]
    return total / repetitions


def run(repetitions: int = 500) -> Outcome:
    found = table(repetitions)
    best = found.min(1)
    checks = [
        near(f"error of {n}-step TD at alpha {ALPHAS[found[i].argmin()]:g}", best[i], known, 0.01)
        for i, (n, known) in enumerate(KNOWN.items())
    ]
    checks.append(Check("best n", float([*KNOWN][int(best.argmin())]), 4.0, 4.0))
    figure, (left, right) = panels(2)
    for n, row in zip(KNOWN, found, strict=True):
        left.plot(ALPHAS, row, label=f"n = {n}")
    left.set(title="19-state random walk", xlabel="α", ylabel="RMS error, first ten episodes", ylim=(0.25, 0.55))
    left.legend(frameon=False)
    right.plot([*KNOWN], best, marker="o")
    right.set(title="at the best α", xlabel="n", ylabel="RMS error", xscale="log")
    right.set_xticks([*KNOWN], [*map(str, KNOWN)])
    right.minorticks_off()
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("n_step_u", run, 500))
