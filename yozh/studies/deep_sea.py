"""Who believes in what was never tried finds the treasure of the deep sea; who now and then does something else never does.

Least-squares value iteration before each episode, with one-hot features, and the bonus of LSVI-UCB (Jin et al. 2020) or, in its place,
random actions. A sea is solved in the first of a hundred episodes in a row that all find the treasure. Acting at random finds it once
in 2^size episodes.
"""

import itertools
import math
import sys

from yozh.studies.study import Check, Outcome, drawn, main, panels
from yozh.tabular import lsvi_ucb, one_hot, problems

LIMITS = {6: 1000, 8: 1000, 10: 1200, 12: 2500, 14: 4000}
"""By size, the episodes in which it is to be solved."""
BLIND = 3000
"""Episodes for who acts at random now and then, at size 10."""
ROW = 100


def solved(size: int, seed: int, within: int, **settings: float) -> float:
    """Episodes until the sea is solved, infinity if it is not."""
    sea = problems.deep_sea(size, seed)
    returns = lsvi_ucb(sea, one_hot(sea), horizon=size, seed=seed, **settings)
    row = 0
    for episode, earned in enumerate(itertools.islice(returns, within + ROW)):
        row = row + 1 if earned > 0.5 else 0
        if row == ROW:
            return float(episode + 2 - ROW)
    return math.inf


def run(repetitions: int = 3) -> Outcome:
    seeds, checks = range(repetitions), []
    found = {size: [solved(size, seed, within) for seed in seeds] for size, within in LIMITS.items()}
    for size, within in LIMITS.items():
        checks.append(
            Check(f"size {size}, optimism: episodes until solved, the most", max(found[size]), 1.0, float(within))
        )
    chance = min(solved(10, seed, BLIND, beta=0.0, epsilon=0.1) for seed in seeds)
    said = f"size 10, one action in ten at random: episodes until solved, if {BLIND:,} are enough, the fewest"
    checks.append(Check(said, chance, math.inf, math.inf))
    figure, (axes,) = panels(1)
    for seed in seeds:
        axes.semilogy(
            [*found], [found[size][seed] for size in found], "o", color="C0", label=None if seed else "optimism"
        )
    axes.semilogy([*found], [2.0**size for size in found], color="grey", linestyle=":", label="2^size")
    axes.set(title="deep sea", xlabel="size", ylabel="episodes until solved")
    axes.legend(frameon=False)
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("deep_sea", run, 3))
