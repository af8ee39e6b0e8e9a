"""Options of environments by name: what an environment tells of them, and what was meant by one that it does not have."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any


def instead(asked: Iterable[str], known: Iterable[str]) -> str:
    """The end of a sentence about the first option asked for that is not known: those most like it, or all if they are few."""
    known = list(known)
    name = next((name for name in asked if name not in known), None)
    if name is None or not known:
        return ""
    near = difflib.get_close_matches(name, known, 3, 0.6)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(known)}" if len(known) < 8 else ""


def of_function(make: Callable[..., Any]) -> list[str]:
    """The arguments of a function or class by name; none if it takes any."""
    try:
        found = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return []
    return [] if any(p.kind is p.VAR_KEYWORD for p in found) else [p.name for p in found]


def of_gymnasium(id: str) -> list[str]:
    """What `gymnasium.make` takes for the id, as far as its class tells."""
    import gymnasium
    from gymnasium.envs.registration import load_env_creator

    creator = gymnasium.spec(id).entry_point
    creator = load_env_creator(creator) if isinstance(creator, str) else creator
    own = of_function(creator) if creator is not None else []
    return [*own, "max_episode_steps"] if own else []
