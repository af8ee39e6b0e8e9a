"""The largest of many guesses is a guess too large; two tables, of which one chooses and the other says what it is worth, are not.

- Ten actions worth 0, guessed with an error of deviation 1: the largest guess is 1.54 on average, the double one 0.
- Sutton & Barto 2018, example 6.7: going left is worse by 0.1, and Q-learning goes there for long.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from yozh import losses
from yozh.studies.study import Outcome, drawn, main, near, panels
from yozh.tabular import DoubleQLearning, Method, QLearning, control, problems

EPISODES = 300
AROUND = 5
"""Episodes on either side over which a share is averaged."""
LEFT = {"Q-learning": (0.81, 0.43, 0.14), "double Q-learning": (0.13, 0.07, 0.06)}
"""Share of runs that go left about episodes 50, 100 and 300."""


def biases(draws: int) -> tuple[float, float]:
    """Mean of the largest of ten guesses N(0, 1), and of what other guesses say of the one that is largest."""
    one, other = jax.random.normal(jax.random.key(0), (2, draws, 10))
    nothing = jnp.zeros(draws)
    single, double = losses.q_target(nothing, 1.0, one), losses.double_q_target(nothing, 1.0, one, other)
    return float(single.mean()), float(double.mean())


def left(method: Method, runs: int) -> Float[np.ndarray, " episodes"]:
    """Share of the runs that go left, by episode; an episode has two steps at most."""
    mdp, steps = problems.gamble(), 2 * (EPISODES + AROUND)

    @jax.jit
    @jax.vmap
    def one(key: Array) -> tuple[Array, Array]:
        _, went = control(method, mdp, gamma=1.0, steps=steps, key=key)
        return went.state_tm1, went.action_tm1

    state, action = jax.tree.map(np.asarray, one(jax.random.split(jax.random.key(1), runs)))
    return np.stack([(a[s == 0] == 0)[: EPISODES + AROUND] for s, a in zip(state, action, strict=True)]).mean(0)


def run(repetitions: int = 4000) -> Outcome:
    single, double = biases(1_000_000)
    checks = [
        near("largest of 10 guesses N(0, 1), single", single, 1.54, 0.01),
        near("largest of 10 guesses N(0, 1), double", double, 0.0, 0.01),
    ]
    figure, (bias, curve) = panels(2)
    bias.bar(["single", "double"], [single, double])
    bias.set(title="Ten actions worth 0", ylabel="estimate of the best")
    for (name, expected), method in zip(LEFT.items(), (QLearning(), DoubleQLearning()), strict=True):
        share = left(method, repetitions)
        curve.plot(100 * share[:EPISODES], label=name)
        for episode, known in zip((50, 100, 300), expected, strict=True):
            found = share[episode - AROUND : episode + AROUND].mean()
            checks.append(near(f"{name}: % left about episode {episode}", 100 * found, 100 * known, 4.0))
    curve.axhline(5.0, linestyle=":", color="grey", label="least there can be, ε = 0.1")
    curve.set(title="Sutton & Barto, example 6.7", xlabel="episode", ylabel="% left", ylim=(0, 100))
    curve.legend(frameon=False)
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("maximisation_bias", run, 4000))
