"""An agent that spends a thousand ticks under the left rock forgets the field; one of eight who share their weights does not.

The place x is a number. In the field, from -0.5 to 1, action 1 is right and pays 1; under the rock, from -1 to -0.8, where nobody has
been before, action 0 is. A linear policy `π(1|x) = σ(w₀ + w₁ x)` can do both, and learns by policy gradient with a linear critic,
tick by tick, from where its agents are: the mean over these. One of them is caught under the rock.
"""

import sys

import numpy as np
from jaxtyping import Float

from yozh.studies.study import Check, Outcome, drawn, main, panels

FREE, CAUGHT, RATE = 1000, 1000, 0.3
PLACES = np.linspace(-0.5, 1, 31)


def chance(w: Float[np.ndarray, "2 *b"], x: float | Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return 1 / (1 + np.exp(-(w[0] + w[1] * x)))


def live(agents: int, seeds: int) -> tuple[Float[np.ndarray, "ticks seeds"], Float[np.ndarray, " seeds"]]:
    """How well the shared policy does in the field after each tick, and under the rock in the end."""
    rng = np.random.default_rng(0)
    w, v, x = np.zeros((2, seeds)), np.zeros((2, seeds)), rng.uniform(-0.5, 1, (agents, seeds))
    field = np.empty((FREE + CAUGHT, seeds))
    for tick in range(FREE + CAUGHT):
        x = np.clip(x + 0.1 * rng.normal(size=x.shape), -0.5, 1)
        if tick >= FREE:
            x[0] = rng.uniform(-1, -0.8, seeds)
        act = rng.random(x.shape) < chance(w, x)
        better = (act == (x >= -0.5)) - (v[0] + v[1] * x)
        push = better * (act - chance(w, x))
        w += RATE * np.stack([push.mean(0), (push * x).mean(0)])
        v += RATE * np.stack([better.mean(0), (better * x).mean(0)])
        field[tick] = chance(w, PLACES[:, None]).mean(0)
    return field, 1 - chance(w, np.array(-0.9))


def run(repetitions: int = 40) -> Outcome:
    found = {agents: live(agents, repetitions) for agents in (1, 2, 8)}
    checks = []
    for agents, (low, high) in {1: (0.5, 0.8), 2: (0.85, 0.98), 8: (0.99, 1.0)}.items():
        field, _ = found[agents]
        checks.append(Check(f"{agents} of them: chance of the right action in the field, before", field[FREE - 1].mean(), 0.99, 1.0))  # fmt: skip
        checks.append(Check(f"{agents} of them: the same after a thousand ticks under the rock", field[-1].mean(), low, high))  # fmt: skip
    checks.append(
        Check("1 of them: chance of the right action under the rock in the end", found[1][1].mean(), 0.8, 1.0)
    )
    figure, (axes,) = panels(1)
    for agents, (field, _) in found.items():
        axes.plot(field.mean(1), label=f"{agents} with the same weights" if agents > 1 else "1 agent")
    axes.axvline(FREE, linestyle=":", color="grey")
    axes.set(title="one of them under the left rock", xlabel="ticks", ylabel="right action in the field")
    axes.legend(frameon=False)
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("left_rock", run, 40))
