"""The ladder of variance: every estimate of the policy gradient has the same mean, and each step down has less variance.

A policy of 3 states and 2 actions whose gradient is known exactly. For each estimate: its mean over all sessions against that gradient,
and its variance in one session, summed over the parameters. Values and action values are the true ones, so that none of the
estimates is biased but the one that leaves out the γᵗ of the theorem, whose mean is known as well.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from yozh.studies.study import Check, Outcome, drawn, main, panels
from yozh.tabular import Softmax, discounted, estimates, gradient, problems
from yozh.tabular.estimates import Estimate

GAMMA, STEPS, AT_ONCE = 0.9, 40, 20_000
LADDER: dict[str, Estimate] = {
    "total return": estimates.total_return,
    "reward-to-go": estimates.reward_to_go,
    "minus mean": estimates.mean_baseline,
    "minus V(s)": estimates.value_baseline,
    "Q(s, a)": estimates.action_value,
    "GAE(0.9)": estimates.generalised(0.9),
    "2 steps": estimates.k_steps(2),
    "TD error": estimates.td_advantage,
    "Q(s, a) - V(s)": estimates.advantage,
}
OTHERS: dict[str, Estimate] = {
    "without the γᵗ": estimates.discounted_return,
    "only ∇log π": lambda s: s.weight_tm1,
}
Moments = dict[str, tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]]
MDP, POLICY = problems.triangle(), Softmax.table(problems.triangle())
THETA = np.array([-0.5, 0.5, 0.0, 0.0, -0.2, 0.2, 0.0, 0.0])
JUDGED = discounted(MDP, POLICY.chances(THETA), GAMMA)


@functools.partial(jax.jit, static_argnames="sessions")
def draws(key: Key[Array, ""], sessions: int) -> dict[str, Float[Array, "N d"]]:
    """Every estimate of the gradient, from each of so many sessions."""
    went, seen = estimates.sessions(
        MDP, POLICY.chances(THETA), GAMMA, JUDGED.value, JUDGED.q, steps=STEPS, batch=sessions, key=key
    )
    score = jnp.asarray(POLICY.score(THETA), jnp.float32)[went.state_tm1, went.action_tm1]
    return {name: jnp.einsum("tb,tbd->bd", of(seen), score) for name, of in (LADDER | OTHERS).items()}


def moments(repetitions: int) -> Moments:
    """Mean and variance of each estimate."""
    rounds = max(1, repetitions // AT_ONCE)
    each = min(AT_ONCE, repetitions)
    sums = {name: np.zeros((2, POLICY.size)) for name in LADDER | OTHERS}
    for key in jax.random.split(jax.random.key(0), rounds):
        for name, found in draws(key, each).items():
            one = np.asarray(found, float)
            sums[name] += one.sum(0), (one**2).sum(0)
    return {
        name: (mean, square - mean**2) for name, (mean, square) in ((k, s / rounds / each) for k, s in sums.items())
    }


def undiscounted_visits() -> Float[np.ndarray, " d"]:
    """What is estimated without the γᵗ: the theorem's sum with visits that count alike, however late."""
    alike = discounted(MDP, POLICY.chances(THETA), 1.0).visits
    return gradient(POLICY, THETA, JUDGED._replace(visits=alike))


def run(repetitions: int = 1_000_000) -> Outcome:
    found = moments(repetitions)
    true, alike = gradient(POLICY, THETA, JUDGED), undiscounted_visits()
    size, within = float(np.linalg.norm(true)), 0.01 * np.sqrt(1e6 / repetitions)
    names, checks, spread = [*LADDER], [], [float(found[name][1].sum()) for name in LADDER]
    for name, variance in zip(names, spread, strict=True):
        error = float(np.linalg.norm(found[name][0] - true)) / size
        checks.append(Check(f"{name}: variance {variance:.4g}, relative error of the mean", error, 0.0, within))
    for name, ratio in zip(names[1:], np.divide(spread[1:], spread[:-1]), strict=True):
        checks.append(Check(f"{name}: variance over that of the step above", ratio, 0.0, 1.0))
    mean, _ = found["without the γᵗ"]
    off, bias = np.linalg.norm(mean - alike) / size, np.linalg.norm(alike - true) / size
    checks.append(Check(f"without the γᵗ, biased by {bias:.3g}: relative error against its own mean", off, 0.0, within))
    mean, variance = found["only ∇log π"]
    errors = np.abs(mean[:6]) / np.sqrt(variance[:6] / repetitions)
    checks.append(Check("mean of ∇log π in standard errors, the largest", errors.max(), 0.0, 3.0))
    return Outcome(checks, picture(found, true))


def picture(found: Moments, true: Float[np.ndarray, " d"]) -> str:
    figure, (left, right) = panels(2)
    left.barh([*LADDER][::-1], [found[name][1].sum() for name in LADDER][::-1])
    left.set(title="variance of one session", xlabel="summed over the parameters", xscale="log")
    place = np.arange(6)
    for shift, name in zip((-0.2, 0.0, 0.2), ("total return", "TD error", "without the γᵗ"), strict=True):
        right.bar(place + shift, found[name][0][:6], 0.2, label=name)
    right.plot(place, true[:6], "k_", markersize=22, label="exact gradient")
    right.set(title="mean of all sessions", ylabel="∂J / ∂θ")
    right.set_xticks(place, [f"({s}, {a})" for s in range(3) for a in range(2)])
    right.legend(frameon=False)
    return drawn(figure)


if __name__ == "__main__":
    sys.exit(main("ladder", run, 1_000_000))
