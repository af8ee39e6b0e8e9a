"""Rainbow on MinAtar, and Rainbow less one of its six parts at a time (after Hessel et al. 2018, figure 3), beside the plain DQN.

The plain DQN is that of the table of methods. Of Rainbow the noise and the support (-10 to 10) were chosen by runs of
SpaceInvaders on the seeds 0 and 1.
After 100,000 steps Asterix and Seaquest are hardly begun. Runs of Asterix on the seeds 0 and 1 say which part is in the way there: after
300,000 steps DQN with C51 had 5.7 and 8.3, with priorities 5.2 (one run), with three steps 2.6 and 2.1, and as it is 6.2 (one run); after
500,000 DQN had 23.7 and 21.7, Rainbow without noise 9.5 and 6.2, Rainbow with noise of .5 and no random start 4.8 and 2.9. Three steps
with half the rate, on seed 0, 2.1: the mean Q stays at 1.0 from step 60,000 on, where that of one step climbs to 3. Cells that are empty were
not run.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.tables import value_based
from yozh.agents.sampling import Uniform
from yozh.agents.values import Expected
from yozh.core import Agent

STEPS = dict.fromkeys(value_based.MINATAR, 100_000)
"""Of every method in an environment."""

PUBLISHED = {name: figures for name, figures in value_based.PUBLISHED.items() if "MinAtar" in name}

SCALE = "DQN = 1"


def between(env: str, scores: Callable[[str], list[float]]) -> tuple[float, float]:
    """The returns that are 0 and 1 there: none, and what the plain DQN reached on average."""
    return 0.0, sum(scores("DQN")) / len(scores("DQN"))


WITHOUT: dict[str, dict[str, Any]] = {
    "double": dict(double=False),
    "dueling": dict(dueling=False),
    "several steps": dict(n_step=1),
    "priorities": dict(replay=Uniform()),
    "noise": dict(noisy=None),
    "distribution": dict(values=Expected()),
}


def less(part: str) -> Callable[[str], Agent]:
    return lambda env: value_based.rainbow(env, **WITHOUT[part])


METHODS: dict[str, Callable[[str], Agent | None]] = {
    "DQN": value_based.plain,
    "Rainbow": value_based.rainbow,
    **{f"Rainbow without {part}": less(part) for part in WITHOUT},
}
