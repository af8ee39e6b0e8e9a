"""Data that are some updates old: the older, the wronger the gradient of a method that takes them for fresh, and the less it learns.

Exact gradient ascent on the short corridor of Sutton & Barto (2018, example 13.1), whose best policy is a random one; the policy of
k updates ago says which states are visited, which actions are taken and what they are worth:
`g = Σ_s d_old(s) Σ_a π_old(a|s) ρ(s, a) ∇log π(a|s) A_old(s, a)`. With ρ = 1 the data are taken for fresh, as A2C takes them; with
`ρ = π(a|s) / π_old(a|s)` only the states and their values are old.
"""

import itertools
import math
import sys

import numpy as np
from jaxtyping import Float

from yozh.studies.study import Check, Outcome, drawn, main, near, panels
from yozh.tabular import Judged, Softmax, discounted, gradient, problems

MDP, GAMMA, RATE, UPDATES = problems.corridor(), 0.9, 0.1, 300
POLICY = Softmax.linear(MDP, np.ones((4, 1)))
"""The same in all states."""
LAGS = 0, 1, 2, 4, 8, 16, 32
FIRST = np.array([1.0, -1.0])
Past = tuple[Float[np.ndarray, "S A"], Judged]


def stale(theta: Float[np.ndarray, " d"], past: Past, corrected: bool) -> Float[np.ndarray, " d"]:
    """The gradient at θ by what an older policy went through."""
    old, judged = past
    acted = POLICY.chances(theta) if corrected else old
    return np.einsum("s,sa,sad,sa->d", judged.visits, acted, POLICY.score(theta), judged.advantage)


def judge(theta: Float[np.ndarray, " d"]) -> Past:
    chances = POLICY.chances(theta)
    return chances, discounted(MDP, chances, GAMMA)


def ascend(lag: int, corrected: bool, rate: float = RATE) -> list[tuple[Float[np.ndarray, " d"], Past]]:
    """θ before each update, its policy and what that is worth."""
    theta, went = FIRST, []
    for update in range(UPDATES):
        went.append((theta, judge(theta)))
        theta = theta + rate * stale(theta, went[max(0, update - lag)][1], corrected)
    return went


def errors(corrected: bool) -> list[float]:
    """By lag, how far the gradients are off on the way of who has fresh data, relative to the true ones, over the time in which that
    one learns."""
    went = ascend(0, False, RATE / 10)[:100]
    true = np.stack([gradient(POLICY, theta, past[1]) for theta, past in went])
    used = [
        np.stack([stale(theta, went[max(0, t - lag)][1], corrected) for t, (theta, _) in enumerate(went)])
        for lag in LAGS
    ]
    return [float(np.linalg.norm(u - true) / np.linalg.norm(true)) for u in used]


def run() -> Outcome:
    late = {
        c: [float(np.mean([past[1].worth for _, past in ascend(lag, c)[UPDATES // 2 :]])) for lag in LAGS]
        for c in (False, True)
    }
    off = {c: errors(c) for c in (False, True)}
    checks = [near("fresh data: J, exact gradients, over the second half", late[False][0], -6.0453, 1e-3)]
    for corrected, name in ((False, "taken for fresh"), (True, "weighted by π / π_old")):
        for a, b, less, more in zip(LAGS, LAGS[1:], off[corrected], off[corrected][1:], strict=False):
            checks.append(
                Check(f"{name}: error of a gradient {b} updates old over one {a} old", more - less, 0.0, math.inf)
            )
        fall = [b - a for a, b in itertools.pairwise(late[corrected])]
        checks.append(Check(f"{name}: J never grows with the lag, by more than", max(fall), -math.inf, 1e-3))
        checks.append(Check(f"{name}: J at lag 32", late[corrected][-1], -10.0, -7.0))
    figure, (left, right) = panels(2)
    for corrected, name in ((False, "taken for fresh"), (True, "weighted by π / π_old")):
        left.plot(LAGS, off[corrected], marker="o", label=name)
        right.plot(LAGS, late[corrected], marker="o", label=name)
    left.set(title="error of the gradient", xlabel="updates that the data are old", ylabel="relative")
    right.set(title="what is learnt", xlabel="updates that the data are old", ylabel="J in the second half")
    for axes in (left, right):
        axes.legend(frameon=False)
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("staleness", run))
