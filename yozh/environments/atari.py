"""Atari games: one set of options for EnvPool's (`Pong-v5`) and for ale-py's (`ALE/Pong-v5`).

Both cut images out alike, byte for byte; EnvPool fills the first stack of a game with its first frame, ale-py with zeros.
"""

import dataclasses
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from yozh.core import YozhError, require
from yozh.environments.options import instead

FOR_TRAINING = ("life_episodes", "sign_rewards")
"""What only training shall see: a policy is judged by whole games and their own rewards."""

_BOTH = {
    "noop_max": ("noop_max",),
    "stack": ("stack_num",),
    "size": ("img_height", "img_width"),
    "sticky": ("repeat_action_probability",),
    "full_actions": ("full_action_space",),
    "fire_reset": ("use_fire_reset",),
}

CALLED: dict[str, dict[str, tuple[str, ...]]] = {
    "envpool": _BOTH
    | {
        "frame_skip": ("frame_skip",),
        "grey": ("gray_scale",),
        "max_steps": ("max_episode_steps",),
        "life_episodes": ("episodic_life",),
        "sign_rewards": ("reward_clip",),
    },
    "gymnasium": _BOTH
    | {
        "frame_skip": ("frameskip",),
        "grey": ("grayscale",),
        "max_steps": ("max_num_frames_per_episode",),
        # ale-py's `episodic_life` begins a new game at every lost life, and shows nothing but first lives.
        "life_episodes": ("life_loss_info",),
        "sign_rewards": ("reward_clipping",),
    },
}
"""What a backend calls each option."""

OWN = {"envpool": ("difficulty", "mode", "num_threads", "thread_affinity_offset"), "gymnasium": ("num_threads", "thread_affinity_offset")}  # fmt: skip
"""Options of a backend beside those here, handed on as they are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How a game is played and seen. The defaults are those of Mnih et al. 2015, with neither of the two for training."""

    noop_max: int = 30
    """A game begins with so many actions at most that do nothing, drawn anew for each; 1 to draw none."""
    frame_skip: int = 4
    """Frames for which an action is held; of the last two the brighter of each pixel is seen."""
    stack: int = 4
    """Observations seen at once, the newest last."""
    grey: bool = True
    """Shades of grey instead of three colours, which are channels of their own, one observation after the other."""
    size: int = 84
    """Pixels of either side."""
    sticky: float = 0.0
    """Chance at each frame that the action before is held instead (0.25: Machado et al. 2018)."""
    full_actions: bool = False
    """All 18 actions instead of those that the game tells apart."""
    fire_reset: bool = True
    """Games that wait for the fire button begin with it; lives do so too, where they are episodes."""
    max_steps: int = 27_000
    """Steps after which a game is truncated: half an hour at 60 frames a second."""
    life_episodes: bool = False
    """A lost life terminates the episode, and the game goes on in the next one. For training only."""
    sign_rewards: bool = False
    """Of a reward only its sign is told. For training only."""


def arguments(id: str, backend: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the backend is to be asked for; a `YozhError` for an option that there is not, or a value that it cannot have."""
    known = [field.name for field in dataclasses.fields(Options)]
    for name in options:
        if name not in (*known, *OWN[backend]):
            raise YozhError(_refusal(id, name, [*known, *OWN[backend]]))
    values = dataclasses.asdict(Options())
    for name in options.keys() & values.keys():
        values[name] = _checked(f"{id}: {name}", values[name], options[name])
    if backend == "gymnasium":
        values["max_steps"] *= values["frame_skip"]  # it counts frames
    own = {k: v for k, v in options.items() if k not in known}
    return {called: values[name] for name, names in CALLED[backend].items() for called in names} | own


def for_judging(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options less those that only training shall see."""
    return {name: value for name, value in options.items() if name not in FOR_TRAINING}


def is_game(id: str) -> bool:
    """Whether the id is that of an Atari game, on a backend that is installed."""
    if id.startswith("ALE/"):
        return find_spec("ale_py") is not None
    return bool(re.fullmatch(r"\w+-v5", id)) and _of_envpool(id)


def _checked(name: str, usual: Any, value: Any) -> Any:
    """A value of the same kind as the usual one."""
    if isinstance(usual, bool):
        require(isinstance(value, bool), f"{name} takes true or false, not {value!r}")
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(usual, float):
        require(number and 0 <= value <= 1, f"{name} is a chance from 0 to 1, not {value!r}")
        return float(value)
    require(number and isinstance(value, int) and value > 0, f"{name} takes a positive whole number, not {value!r}")
    return value


def _refusal(id: str, name: str, known: list[str]) -> str:
    ours = next((ours for names in CALLED.values() for ours, called in names.items() if name in called), None)
    return f"{id} has no option {name!r}" + (instead([name], known) if ours is None else f"; it is called {ours} here")


def _of_envpool(id: str) -> bool:
    if not find_spec("envpool"):
        return False
    from envpool.registration import registry

    return id in registry.specs and registry.specs[id][0] == "envpool.atari"
