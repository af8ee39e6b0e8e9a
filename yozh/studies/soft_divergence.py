"""Values that no reward can justify: how often they come, and what holds them (van Hasselt et al. 2018).

DQN on CartPole with eight buttons for each of its two actions, so that there is something to overestimate. Its rewards of 1 allow
values up to 1 / (1 - γ) = 100; a run diverges softly if any value of a state in its replay passes that, whether it comes back or
not. The paper's signs: a target network holds values down, so do more steps before the bootstrap, and so does letting the other
network choose the action (double).
"""

import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from yozh.agents import DQN
from yozh.agents.targets import Hard
from yozh.environments.batched import Vectorised
from yozh.environments.classic import CartPole
from yozh.networks import Auto
from yozh.runners.fused import Metrics, Run
from yozh.studies.study import Buttons, Check, Outcome, drawn, main, panels, watched

BOUND = 100.0
BUTTONS = 8
STEPS = (1, 3, 10)
"""n"""
PERIODS = (1, 32, 40, 64)
"""Updates between two copies to the target network; with 1 there is none."""
LOOKS, TURNS, STREAMS = 40, 50, 4
"""A turn is a step of each stream and an update; so is a run: 2,000 updates."""
SKIP = 4


def largest(n: int, double: bool, repetitions: int) -> Float[np.ndarray, "periods repetitions looks"]:
    """The largest |Q| of the stored states, after each stretch of training."""
    env = Vectorised(Buttons(CartPole(), BUTTONS), STREAMS)

    def one(period: Array, key: Key[Array, ""]) -> Array:
        agent = DQN(learning_rate=1e-3, epsilon=0.1, torso=Auto((32, 32), "relu", "uniform"), target=Hard(period), batch=32,
                    capacity=8192, warm_up=500, streams=STREAMS, double=double, n_step=n)  # fmt: skip

        def look(run: Run, metrics: Metrics) -> Array:
            steps = jax.tree.map(lambda x: x[::SKIP].reshape(-1, *x.shape[2:]), run.store.steps[0])
            return jnp.abs(agent.forward(run.state, (), steps)[0]).max()

        return watched(agent, env, key, looks=LOOKS, turns=TURNS, look=look)[1]

    each = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    return np.asarray(jax.jit(each)(jnp.asarray(PERIODS, jnp.int32), jax.random.split(jax.random.key(0), repetitions)))


def share(n: int, double: bool, repetitions: int) -> Float[np.ndarray, " periods"]:
    """% of the runs that diverge softly."""
    return 100 * (largest(n, double, repetitions).max(-1) > BOUND).mean(-1)


def run(repetitions: int = 24) -> Outcome:
    found = {n: share(n, False, repetitions) for n in STEPS}
    one, double = found[1], share(1, True, repetitions)
    checks = [
        Check("% of runs that diverge softly, n = 1, no target network", one[0], 90.0, 100.0),
        Check(f"the same, a target network of {PERIODS[-1]} updates", one[-1], 0.0, 10.0),
    ]
    checks += [
        Check(
            f"% fewer with a target network of {PERIODS[1]} updates, n = {b} instead of {a}", x[1] - y[1], 10.0, 100.0
        )
        for (a, x), (b, y) in itertools.pairwise(found.items())
    ]
    less = (one - double)[1:-1].mean()
    checks.append(Check(f"% fewer with {PERIODS[1]} and {PERIODS[2]} updates, double", less, 5.0, 100.0))
    figure, (left, right) = panels(2)
    bars = {left: {f"n = {n}": x for n, x in found.items()}, right: {"n = 1": one, "n = 1, double": double}}
    for ax, rows in bars.items():
        for i, (label, x) in enumerate(rows.items()):
            ax.bar(np.arange(len(PERIODS)) + 0.27 * i, x, 0.25, label=label)
        ax.set(ylabel="% of runs with |Q| > 100", xlabel="updates between copies (1: no target network)", ylim=(0, 105))
        ax.set_xticks(np.arange(len(PERIODS)) + 0.135 * (len(rows) - 1), [*map(str, PERIODS)])
        ax.legend(frameon=False)
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("soft_divergence", run, 24))
