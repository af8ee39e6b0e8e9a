"""A baseline may know the action, if a correction gives back the mean that it takes; what that saves, and what forgetting it costs.

A Gaussian bandit: s ~ N(0, 1), a ~ N(θ s, 1), R = -(a - s)², the gradient with respect to θ at θ = 0. Its mean is 2 E[s²] = 2. By the
moments of the normal distribution its variance is 80 without a baseline, 42 with V(s), 18 with V(s) and Q-Prop's line through the mean
of the policy (Gu et al. 2017), and 8 with the exact baseline b(s, a) = R(s, a), whose correction alone is left (Wu et al. 2018).
Tails are heavy: a hundred thousand draws say 80 to about 4.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from yozh.distributions import Normal
from yozh.losses import action_baseline, linear_baseline
from yozh.studies.study import Check, Outcome, drawn, main, near, panels

KNOWN = {"none": 80.0, "V(s)": 42.0, "V(s), linear in a": 18.0, "exact in a": 8.0}
"""Variance of the gradient, by the baseline."""
AT_ONCE = 10_000


def loss(theta: Float[Array, ""], s: Float[Array, "1"], a: Float[Array, "1"], kind: str, correct: bool) -> Float[Array, ""]:  # fmt: skip
    """Of one action; minus its gradient is an estimate of that of the mean reward."""

    def reward(a: Float[Array, "1"]) -> Float[Array, ""]:
        return -jnp.sum((a - s) ** 2)

    policy = Normal(theta * s, jnp.zeros(1))
    mean, zero = policy.mean, jnp.zeros(())
    worth, value = reward(a), -1.0 - jnp.sum((jax.lax.stop_gradient(mean) - s) ** 2)
    if kind == "none":
        baseline, expected = zero, zero
    elif kind == "V(s)":
        baseline, expected = value, zero
    elif kind == "exact in a":
        baseline, expected = worth, reward(mean) - 1.0
    else:
        line, slope = linear_baseline(reward, a, mean)
        baseline, expected = value + line, jnp.sum(slope * mean)
    return action_baseline(policy.log_prob(a), worth, baseline, expected if correct else zero)


@functools.partial(jax.jit, static_argnames=("kind", "correct"))
def gradients(key: Key[Array, ""], kind: str, correct: bool = True) -> Float[Array, " n"]:
    """Of as many draws as are made at once."""
    s, a = jax.random.normal(key, (2, AT_ONCE, 1))
    one = jax.grad(lambda theta, s, a: -loss(theta, s, a, kind, correct))
    return jax.vmap(one, (None, 0, 0))(jnp.zeros(()), s, a)


def sampled(kind: str, repetitions: int, *, correct: bool = True) -> Float[np.ndarray, " n"]:
    keys = jax.random.split(jax.random.key(0), repetitions)
    return np.concatenate([np.asarray(gradients(key, kind, correct), np.float64) for key in keys])


def run(repetitions: int = 400) -> Outcome:
    found = {kind: sampled(kind, repetitions) for kind in KNOWN}
    biased = sampled("exact in a", repetitions, correct=False)
    within = 0.1 / np.sqrt(repetitions / 400)  # of the variance; five standard errors and more
    checks = [
        near(f"variance, baseline {kind}", found[kind].var(), known, 0.5 * within * known)
        for kind, known in KNOWN.items()
    ]
    checks += [near(f"mean, baseline {kind}", x.mean(), 2.0, 0.2 * within) for kind, x in found.items()]
    checks.append(Check("mean, baseline exact in a, without its correction", biased.mean(), -1e-6, 1e-6))
    figure, (left, right) = panels(2)
    left.bar([*KNOWN], [x.var() for x in found.values()], color="C0")
    left.set(title="variance of the gradient", ylabel="variance")
    left.tick_params(axis="x", labelsize=7)
    means = [x.mean() for x in found.values()] + [biased.mean()]
    right.bar([*KNOWN, "exact,\nuncorrected"], means, color=["C0"] * len(KNOWN) + ["C3"])
    right.axhline(2.0, color="black", linewidth=0.8)
    right.set(title="mean of the gradient (2)", ylabel="mean")
    right.tick_params(axis="x", labelsize=7)
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("action_baselines", run, 400))
