import dataclasses
from collections.abc import Mapping
from typing import Any

from yozh.core import Agent


@dataclasses.dataclass(frozen=True)
class Preset:
    """An agent tuned for one environment."""

    agent: Agent
    steps: int
    """Environment steps to train for."""
    reached: str
    """Mean returns of the final policies, of seeds 0 to 4 unless others are named, over 100 episodes, and seconds of training on one core of an AMD EPYC
    (Zen 5) beside another run."""
    source: str = ""
    """Where the settings come from."""
    env_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """For the environment's own constructor."""

    @property
    def envs(self) -> int:
        return self.agent.experience.streams
