"""The natural gradient crosses in two units of time a plateau on which the plain one stays for sixty thousand.

Kakade's two states (2001, section 4): to stay pays 1 in the first and 2 in the second, to move pays nothing. A policy that is likely
to stay in the first and to leave the second earns 1 there soon, and is in the second ever more seldom: the plain gradient of its logit
goes to 0 with the visits, the natural one is divided by them. Both follow `dθ/dT`, one logit of staying for each state, exactly.
"""

import sys
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float

from yozh.studies.study import Check, Outcome, drawn, main, near, panels
from yozh.tabular import Judged, Softmax, average, gradient, natural_gradient, problems

MDP = problems.kakade()
POLICY = Softmax(np.stack([np.eye(2), np.zeros((2, 2))], 1), MDP.legal)
STAY = np.array([0.8, 0.1])
"""Chance of staying in each state, at the beginning."""
KNOWN = {1.1: 1.96, 1.5: 2.12, 1.9: 2.27}
"""When the natural gradient passes an average reward."""
Direction = Callable[[Softmax, Float[np.ndarray, " 2"], Judged], Float[np.ndarray, " 2"]]


def ascend(direction: Direction, times: Iterable[float]) -> list[tuple[float, float, float, float]]:
    """T, the average reward and the two chances of staying, by Euler's method with these steps of T; to 1.99, since the natural
    gradient reaches 2 in finite time."""
    theta, now, found = np.log(STAY / (1 - STAY)), 0.0, []
    for until in times:
        judged = average(MDP, POLICY.chances(theta))
        found.append((now, judged.worth, *POLICY.chances(theta)[:, 0]))
        if judged.worth > 1.99:
            break
        theta, now = theta + (until - now) * direction(POLICY, theta, judged), until
    return found


def passes(found: list[tuple[float, float, float, float]], worth: float) -> float:
    return next((now for now, reached, *_ in found if reached >= worth), float("inf"))


def run() -> Outcome:
    natural = ascend(natural_gradient, np.arange(1, 241) / 100)
    plain = ascend(gradient, np.geomspace(0.1, 60_000, 4000))
    checks = [near(f"natural gradient: T at an average reward of {worth}", passes(natural, worth), when, 0.015)
              for worth, when in KNOWN.items()]  # fmt: skip
    checks += [
        Check("natural gradient: T at an average reward of 1.99", natural[-1][0], 2.27, 2.4),
        near("plain gradient: average reward at T = 60,000", plain[-1][1], 1.0, 1e-3),
        Check("plain gradient: share of visits to the better state there", visits(plain[-1]), 0.0, 1e-3),
    ]
    figure, (left, right) = panels(2)
    for name, found in (("natural", natural), ("plain", plain)):
        now, reached, first, second = np.transpose(found[1:])
        left.semilogx(now, reached, label=name)
        right.plot(first, second, label=name)
    left.set(title="Kakade's two states", xlabel="T", ylabel="average reward")
    right.set(title="chance of staying", xlabel="in the state that pays 1", ylabel="in the state that pays 2")
    for axes in (left, right):
        axes.legend(frameon=False)
    return Outcome(checks, drawn(figure))


def visits(at: tuple[float, float, float, float]) -> float:
    """To the second state, by the chances of staying."""
    *_, first, second = at
    return (1 - first) / (2 - first - second)


if __name__ == "__main__":
    sys.exit(main("natural_gradient", run))
