"""Tuned agents for named environments, each with what it reached."""

from difflib import get_close_matches
from typing import Any

from yozh import agents
from yozh.core import YozhError
from yozh.environments.atari import is_game
from yozh.presets import (
    a2c,
    acer,
    ars,
    atari,
    dqn,
    dqn_lecture,
    es,
    hca,
    mdpo,
    npg,
    ppg,
    ppo,
    pqn,
    qac,
    qprop,
    reinforce,
    trpo,
    vpg,
)  # fmt: skip
from yozh.presets.atari import rainbow
from yozh.presets.file import read, write
from yozh.presets.preset import Preset

__all__ = ["Preset", "env_options", "find", "kinds", "names", "rainbow", "read", "start", "write"]

_PRESETS = {
    (module.__name__.rpartition(".")[2].replace("_", "-"), env): preset
    for module in (a2c, acer, ars, dqn, dqn_lecture, es, hca, mdpo, npg, ppg, ppo, pqn, qac, qprop, reinforce, trpo, vpg)
    for env, preset in module.PRESETS.items()
}  # fmt: skip


def names() -> list[tuple[str, str]]:
    """`(agent, environment)` of every preset; `Atari` stands for every game."""
    return [*_PRESETS, *((agent, atari.ANY) for agent in atari.PRESETS)]


def kinds() -> list[str]:
    """What `start` knows agents by: their own names, and those of presets that are variants of them."""
    return list(dict.fromkeys([*agents.names(), *(agent for agent, _ in names())]))


def find(agent: str, env: str) -> Preset:
    """The preset; raises `KeyError` where there is none."""
    if (agent, env) not in _PRESETS and agent in atari.PRESETS and (env == atari.ANY or is_game(env)):
        return atari.PRESETS[agent]
    return _PRESETS[agent, env]


def start(agent: str, env: Any) -> tuple[Any, int | None]:
    """The preset's agent and steps or, where there is none for the environment, the agent's defaults and None. Without an
    environment a preset that is a variant of an agent stands for itself."""
    if agent not in kinds():
        close = get_close_matches(agent, kinds(), 1)
        raise YozhError(
            f"there is no agent {agent!r}; "
            + (f"did you mean {close[0]}?" if close else f"there are {', '.join(kinds())}")
        )
    preset = _found(agent, env)
    if preset is not None:
        return preset.agent, preset.steps
    usual = agents.names().get(agent)
    if usual is None:
        where = [name for variant, name in names() if variant == agent]
        usual = find(agent, where[0]).agent
        if env is None:
            return usual, None
        kind = type(usual).__name__.lower()
        known = " and ".join("Atari games" if name == atari.ANY else name for name in where)
        raise YozhError(f"{agent} is a preset of {kind} for {known}; {env} takes {kind}, with parts: yozh list {kind}")
    return usual(), None


def env_options(agent: str, env: Any) -> dict[str, Any]:
    """The options of the environment that the preset asks for; none where there is no preset."""
    preset = _found(agent, env)
    return {} if preset is None else dict(preset.env_options)


def _found(agent: str, env: Any) -> Preset | None:
    try:
        return find(agent, env) if isinstance(env, str) else None
    except KeyError:
        return None
