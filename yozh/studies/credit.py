"""One reward after a thousand steps: which of the thousand actions earned it?

The first of T actions decides, by a fair coin, on +1 or -1 at the end; every step pays noise besides. The estimate of the first
action's gradient is `score · w`, score ±1/2, and its true value is 1/2. How many sessions until the estimate is as large as its
error, `Var / mean²`:

- reward-to-go: `σ² T`; the other actions, whose gradient is 0, add a variance of their own, T times;
- γ < 1 bounds the noise, and shrinks the signal to `γ^(T-1)`: `σ² Σ_k γ^2k / γ^2(T-1)`;
- GAE(λ) with V that knows: `σ² Σ_k λ^2k`, whatever T; the TD error, λ = 0, needs σ²;
- GAE(λ) with V = 0, which knows nothing yet, is γ under another name.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from yozh import returns
from yozh.studies.study import Check, Outcome, drawn, main, panels

DELAYS = 10, 30, 100, 300, 1000
SIGMA, GAMMA, LAM = 0.3, 0.99, 0.95
AT_ONCE = 2000


@functools.partial(jax.jit, static_argnames=("steps", "sessions"))
def draws(key: Key[Array, ""], steps: int, sessions: int) -> dict[str, Float[Array, " N"]]:
    """`score · w` of the first action, by estimate, and the sum of `score · G` over all the other actions."""
    first, others, noise = jax.random.split(key, 3)
    choice = jax.random.rademacher(first, (sessions,), jnp.float32)
    score = jax.random.rademacher(others, (steps, sessions), jnp.float32).at[0].set(choice) / 2
    reward = SIGMA * jax.random.normal(noise, (steps, sessions))
    reward = reward.at[-1].add(choice)
    going = jnp.ones_like(reward).at[-1].set(0.0)
    known = jnp.broadcast_to(choice, reward.shape)
    before, after = known.at[0].set(0.0), known * going
    go = returns.discounted_return(reward, going, jnp.zeros(sessions))
    impatient = returns.discounted_return(reward, GAMMA * going, jnp.zeros(sessions))
    return {
        "reward-to-go": score[0] * go[0],
        f"reward-to-go, γ = {GAMMA}": score[0] * impatient[0],
        f"GAE({LAM}), V = 0": score[0] * returns.gae(reward, going, LAM, 0 * before, 0 * after)[0],
        f"GAE({LAM}), V known": score[0] * returns.gae(reward, going, LAM, before, after)[0],
        "TD error, V known": score[0] * returns.td_error(reward, going, before, after)[0],
        "others": (score * go)[1:].sum(0),
    }


def expected(steps: int) -> dict[str, tuple[float, float]]:
    """Mean and variance of each, by the formulas above."""

    def noise(fall: float) -> float:
        return SIGMA**2 * float((fall ** (2 * np.arange(steps))).sum())

    found = {}
    for name, fall, signal in (("reward-to-go", 1.0, 1.0), (f"reward-to-go, γ = {GAMMA}", GAMMA, GAMMA ** (steps - 1)),
                               (f"GAE({LAM}), V = 0", LAM, LAM ** (steps - 1)), (f"GAE({LAM}), V known", LAM, 1.0),
                               ("TD error, V known", 0.0, 1.0)):  # fmt: skip
        found[name] = signal / 2, noise(fall) / 4
    left = np.arange(1, steps)
    return found | {"others": (0.0, float((1 + SIGMA**2 * left).sum()) / 4)}


def run(repetitions: int = 20_000) -> Outcome:
    known = {steps: expected(steps) for steps in DELAYS}
    names, checks, keys = [*known[10]], [], jax.random.split(jax.random.key(0), max(1, repetitions // AT_ONCE))
    worst = dict.fromkeys(names, (0.0, 0.0))
    for steps in DELAYS:
        rounds = [draws(key, steps, AT_ONCE) for key in keys]
        for name in names:
            x = np.concatenate([np.asarray(r[name], float) for r in rounds])
            mean, variance = known[steps][name]
            off = abs(x.mean() - mean) / np.sqrt(variance / len(x)), abs(x.var() / variance - 1)
            worst[name] = tuple(np.maximum(worst[name], off))
    for name in names:
        checks.append(Check(f"{name}: mean, in standard errors from its formula, the most", float(worst[name][0]), 0.0, 4.0))  # fmt: skip
        checks.append(Check(f"{name}: variance, relative distance from its formula, the most", float(worst[name][1]), 0.0, 0.15))  # fmt: skip
    needs = {name: [known[t][name][1] / known[t][name][0] ** 2 for t in DELAYS] for name in names[:-1]}
    total = [(known[t]["reward-to-go"][1] + known[t]["others"][1]) * 4 for t in DELAYS]
    for name in names[:-1]:
        checks.append(Check(f"{name}: sessions that 1,000 steps need over those of 10", needs[name][-1] / needs[name][0], *GROWS[name]))  # fmt: skip
    figure, (axes,) = panels(1)
    for name, sessions in needs.items():
        axes.loglog(DELAYS, sessions, marker="o", markersize=3, label=name)
    axes.loglog(DELAYS, total, marker="o", markersize=3, linestyle="--", label="reward-to-go, all actions")
    axes.set(
        title="one reward after T steps",
        xlabel="T",
        ylabel="sessions for a signal as large as its error",
        ylim=(0.01, 1e7),
    )
    axes.legend(frameon=False, fontsize=6)
    return Outcome(checks, drawn(figure))


GROWS = {
    "reward-to-go": (99.0, 101.0),
    f"reward-to-go, γ = {GAMMA}": (1e8, 1e12),
    f"GAE({LAM}), V = 0": (1e30, float("inf")),
    f"GAE({LAM}), V known": (1.0, 2.0),
    "TD error, V known": (1.0, 1.0),
}
"""From where to where."""


if __name__ == "__main__":
    sys.exit(main("credit", run, 20_000))
