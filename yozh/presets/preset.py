import dataclasses

from yozh.core import Agent


@dataclasses.dataclass(frozen=True)
class Preset:
    """An agent tuned for one environment."""

    agent: Agent
    steps: int
    """Environment steps to train for."""
    reached: str
    """What came of it: seeds, steps, mean returns of the final policies over 100 episodes, hardware."""
    source: str = ""
    """Where the settings come from."""

    @property
    def envs(self) -> int:
        return self.agent.experience.streams
