"""Which transitions are learnt from decides how long a rare reward takes to be known.

The Blind Cliffwalk of Schaul et al. 2016, section 3.1: of two actions in each of n states one goes on and one ends the episode, and
only who goes on n times earns 1. The replay holds every one of the 2^n sequences of actions, each once, and a table is learnt
from it: updates until the mean squared error over all states and actions is below 1e-3.
"""

import functools
import itertools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from yozh import losses
from yozh.core import TimeStep, Unroll
from yozh.stores import PrioritisedReplay
from yozh.stores.prioritised import Kind
from yozh.studies.study import Check, Outcome, drawn, main, near, panels

ALPHA = 0.25
"""Step size."""
SPREAD = 0.1
"""Standard deviation of the values before the first update."""
GOOD = 1e-3
"""Mean squared error at which learning is done."""
LONGEST = 1_000_000
DRAWS: dict[str, tuple[float, Kind]] = {
    "uniform": (0.0, "proportional"),
    "rank": (0.7, "rank"),
    "proportional": (0.6, "proportional"),
    "greedy": (1.0, "proportional"),
}
"""How transitions are drawn, from the slowest on: the exponent of priorities, and their kind. Greedily, the largest one comes."""
KNOWN = {
    8: {"uniform": 5500, "proportional": 1360, "greedy": 780},
    10: {"uniform": 29_720, "proportional": 4400, "greedy": 2400},
}
"""Updates, by the number of states; computed with another program, whose smallest priority is not known."""
WITHIN = 1 / 3
"""Share by which a median may be off."""


def truth(n: int) -> Float[np.ndarray, "n 2"]:
    """Values: action 0 ends the episode, action 1 goes on; gamma is 1 - 1/n."""
    return np.stack([np.zeros(n), (1 - 1 / n) ** np.arange(n - 1, -1, -1)], 1)


def memory(n: int, order: Int[np.ndarray, " sequences"]) -> Unroll:
    """All sequences of actions in this order, as one stream of steps that observes states."""
    obs, action, last = [], [], []
    for sequence in order:
        bits = [int(sequence) >> i & 1 for i in range(n)]
        length = bits.index(0) + 1 if 0 in bits else n
        obs += range(length + 1)
        action += [*bits[:length], 0]
        last += [False] * length + [True]
    ends = np.array(last)
    first = np.concatenate([[True], ends[:-1]])
    won = ends & (np.array(obs) == n) & np.concatenate([[False], np.array(action)[:-1] == 1])
    as_stream = lambda x, kind: jnp.asarray(np.array(x), kind)[:, None]  # noqa: E731
    step = TimeStep(as_stream(obs, jnp.int32), as_stream(won, jnp.float32), as_stream(~ends, jnp.float32),
                    as_stream(first, bool), as_stream(ends, bool))  # fmt: skip
    return Unroll(step, as_stream(action, jnp.int32), (), (), jnp.zeros(1, jnp.int32), jnp.ones(1))


@functools.partial(jax.jit, static_argnames=("n", "draw"))
def updates(n: int, draw: str, past: Unroll, key: Key[Array, ""]) -> Int[Array, ""]:
    """How many it takes."""
    alpha, kind = DRAWS[draw]
    store = PrioritisedReplay(past.action.shape[0] - 1, 1, alpha=alpha, kind=kind)
    known, gamma = jnp.asarray(truth(n), jnp.float32), 1 - 1 / n

    def wrong(carry: tuple) -> Array:
        t, q, _ = carry
        return (jnp.mean(jnp.square(q - known)) >= GOOD) & (t < LONGEST)

    def update(carry: tuple) -> tuple:
        t, q, held = carry
        batch, place = store.sample(held, jax.random.fold_in(key, t))
        if draw == "greedy":
            place = jnp.argmax(held.masses.levels[0])[None].astype(jnp.int32)
            steps, action, extras = held.ring.windows(place, jnp.zeros_like(place), 1)
            batch = eqx.tree_at(lambda b: (b.step, b.action, b.extras), batch, (steps, action, extras))
        state, action = batch.step.obs[:, 0], batch.action[0, 0]
        follows = q[jnp.minimum(state[1], n - 1)]
        target = losses.q_target(batch.step.reward[1, 0], gamma * batch.step.discount[1, 0], follows)
        error = target - q[state[0], action]
        return t + 1, q.at[state[0], action].add(ALPHA * error), store.feedback(held, place, jnp.abs(error)[None])

    first = SPREAD * jax.random.normal(jax.random.fold_in(key, LONGEST), (n, 2))
    return jax.lax.while_loop(wrong, update, (jnp.int32(0), first, store.add(store.init(past), past)))[0]


def table(n: int, repetitions: int) -> dict[str, Int[np.ndarray, " repetitions"]]:
    """Updates of every repetition, by how transitions are drawn; each has an order of the sequences of its own."""
    rng = np.random.default_rng(0)
    past = jax.tree.map(lambda *x: jnp.stack(x), *[memory(n, rng.permutation(2**n)) for _ in range(repetitions)])
    keys = jax.random.split(jax.random.key(0), repetitions)
    each = jax.vmap(updates, in_axes=(None, None, 0, 0))
    return {draw: np.asarray(each(n, draw, past, keys)) for draw in DRAWS}


def run(repetitions: int = 20) -> Outcome:
    checks, figure, (axes,) = [], *panels(1)
    for i, (n, known) in enumerate(KNOWN.items()):
        median = {draw: float(np.median(found)) for draw, found in table(n, repetitions).items()}
        checks += [near(f"{n} states, {draw}: updates", median[draw], x, WITHIN * x) for draw, x in known.items()]
        checks += [
            Check(f"{n} states, {other}: updates as a share of those of {one}", median[other] / median[one], 0.0, 0.9)
            for one, other in itertools.pairwise(DRAWS)
        ]
        bars = axes.bar(np.arange(len(median)) + 0.4 * i, [*median.values()], 0.38, label=f"{n} states")
        axes.bar_label(bars, [f"{x:,.0f}" for x in median.values()], fontsize=7)
    axes.set(title="Blind Cliffwalk", ylabel="updates until the error is below 0.001", yscale="log")
    axes.set_xticks(np.arange(len(DRAWS)) + 0.2, [*DRAWS])
    axes.legend(frameon=False)
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("blind_cliffwalk", run, 20))
