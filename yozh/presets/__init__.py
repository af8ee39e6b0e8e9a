"""Tuned agents for named environments, each with what it reached."""

from typing import Any

from yozh import agents
from yozh.core import YozhError
from yozh.presets import a2c, acer, dqn, ppo, pqn, qac
from yozh.presets.atari import rainbow
from yozh.presets.file import read, write
from yozh.presets.preset import Preset

__all__ = ["Preset", "find", "names", "rainbow", "read", "start", "write"]

_PRESETS = {
    (kind, env): preset
    for kind, m in (("a2c", a2c), ("acer", acer), ("dqn", dqn), ("ppo", ppo), ("pqn", pqn), ("qac", qac))
    for env, preset in m.PRESETS.items()
}


def names() -> list[tuple[str, str]]:
    """`(agent, environment)` of every preset."""
    return list(_PRESETS)


def find(agent: str, env: str) -> Preset:
    return _PRESETS[agent, env]


def start(agent: str, env: Any) -> tuple[Any, int | None]:
    """The preset's agent and steps or, where there is none for the environment, the agent's defaults and None."""
    from difflib import get_close_matches

    known = agents.names()
    if agent not in known:
        close = get_close_matches(agent, known, 1)
        raise YozhError(
            f"there is no agent {agent!r}; "
            + (f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}")
        )
    preset = _PRESETS.get((agent, env)) if isinstance(env, str) else None
    return (known[agent](), None) if preset is None else (preset.agent, preset.steps)
