"""Rainbow on MinAtar, and Rainbow less one of its six parts at a time (after Hessel et al. 2018, figure 3), beside the plain DQN.

The plain DQN is that of the table of methods; nothing was tuned for Rainbow or what is left of it.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.tables import value_based
from yozh.agents.sampling import Uniform
from yozh.agents.values import Expected
from yozh.core import Agent

STEPS = dict.fromkeys(value_based.MINATAR, 100_000)
"""Of every method in an environment."""

UNIT = "DQN"
"""Whose mean return in an environment is the unit there."""

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
