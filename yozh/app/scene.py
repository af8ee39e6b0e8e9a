"""A policy in an environment that somebody draws: what films and windows show."""

import dataclasses
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from yozh import environments, spaces
from yozh.app.pictures import Painter
from yozh.core import BatchedEnv, Env, HostEnv, YozhError, require
from yozh.environments.atari import is_game
from yozh.environments.registry import imported
from yozh.runners.policy import Policy

RATE = 25.0
"""Pictures a second where an environment does not say."""
SLOW = 8.0
"""Pictures a second of an observation drawn: mostly of games that go turn by turn."""

Player = Callable[..., Any]
"""A `Policy`, or a function of one observation, and of the mask of legal actions where there is one."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """One moment of an episode."""

    pixels: np.ndarray | None
    """`[height, width, 3]` of uint8; `None` where the environment has its own window."""
    episode: int
    """From 1."""
    total: float
    """Rewards so far."""
    steps: int
    last: bool


class Scene:
    """One stream of an environment, and how it is drawn."""

    def __init__(self, host: HostEnv, draw: Callable[[Any], np.ndarray | None], rate: float, own_window: bool = False):
        self.host, self.draw, self.rate, self.own_window = host, draw, rate, own_window

    def play(self, policy: Player, *, episodes: int, longest: int, seed: int) -> Iterator[Picture]:
        """Pictures of whole episodes, or of their first `longest` steps."""
        step, episode = self._opened(policy, seed), 1
        total, steps = 0.0, 0
        while True:
            last = bool(step.last[0]) or steps == longest
            yield Picture(self.draw(step.obs), episode, total, steps, last)
            if last and episode == episodes:
                return
            if last:
                step, episode, total, steps = self._opened(policy, seed + episode), episode + 1, 0.0, 0
                continue
            obs = jax.tree.map(lambda x: np.asarray(x)[0], step.obs)
            legal = (np.asarray(step.extras["legal"])[0],) if self.host.spec.legal else ()
            self.host.send(jax.tree.map(lambda a: np.asarray(a)[None], policy(obs, *legal)))
            step = self.host.recv()
            total, steps = total + float(step.reward[0]), steps + 1

    def _opened(self, policy: Player, seed: int) -> Any:
        if isinstance(policy, Policy):
            policy.reset()
        return self.host.reset(seed)


def set_scene(policy: Player, env: Any, *, window: bool = False, options: Mapping[str, Any] | None = None) -> Scene:
    """The environment, whatever `yozh.make` takes, with its painter: Gymnasium's own where it has one (of the same id, for an
    environment that runs elsewhere), else the observation, if it looks like a picture.

    With `window` an environment that opens a window of its own may do so. `options` are those of the environment.
    """
    target, why, options = imported(env) or env, "it has no picture", dict(options or {})
    scene = None
    if not isinstance(target, BatchedEnv | HostEnv | Env) and not (
        isinstance(target, type) and issubclass(target, Env)
    ):
        scene, why = _gymnasium(policy, target, window, options)
    if scene is not None:
        return scene
    host = environments.make(target, 1, hosted=True, **options)
    require(
        _fits(policy, host), lambda: f"the policy was trained for {policy.spec}, and the environment has {host.spec}"
    )
    painter = Painter.of(host.spec.observation)
    if painter is None:
        host.close()
        raise YozhError(f"{named(env)} cannot be drawn: {why}, and {spaces.describe(host.spec.observation)} is none")
    return Scene(host, painter, SLOW)


def named(env: Any) -> str:
    return env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__)


def has_display() -> bool:
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _gymnasium(policy: Player, target: Any, window: bool, options: dict[str, Any]) -> tuple[Scene | None, str]:
    """A scene that Gymnasium draws, or why there is none."""
    import gymnasium

    from yozh.environments.gymnasium import GymnasiumHost, registered

    if isinstance(target, str) and not registered(target):
        return None, "Gymnasium does not know it"
    if isinstance(target, str) and is_game(target):
        return None, "it is drawn as the policy sees it"
    if not has_display():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("MUJOCO_GL", "egl")
    make = functools.partial(gymnasium.make, target) if isinstance(target, str) else target
    make = functools.partial(make, **options) if callable(make) else make
    try:
        one = _drawn(make, window)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        if isinstance(error, TypeError) and not options:
            raise
        return None, str(error)
    if one is None:
        return None, "Gymnasium does not draw it"
    host, rate = GymnasiumHost(lambda: one, 1), float(one.metadata.get("render_fps") or RATE)
    if not _fits(policy, host):
        host.close()
        return None, "Gymnasium's of this id has other spaces"
    if one.render_mode == "human":
        return Scene(host, lambda obs: None, rate, own_window=True), ""
    try:
        require(np.ndim(one.render()) == 3, "it gives no picture")
    except Exception as error:  # simulators raise all sorts of things where a library or a graphics driver is missing
        host.close()
        return None, f"its renderer fails ({error})"
    return Scene(host, lambda obs: np.asarray(one.render()), rate), ""


def _drawn(make: Callable[..., Any], window: bool) -> Any:
    """An environment that renders, or `None`."""
    import gymnasium

    if isinstance(make, gymnasium.Env | gymnasium.vector.VectorEnv):
        return None  # made already, and `yozh.make` says what it thinks of that
    parameters = inspect.signature(make).parameters.values()
    open_to = any(p.name == "render_mode" or p.kind is p.VAR_KEYWORD for p in parameters)
    for mode in ("human", "rgb_array") if window else ("rgb_array",):
        try:
            one = make(render_mode=mode) if open_to else make()
        except gymnasium.error.Error:
            if mode == "rgb_array":
                raise
            continue
        if not isinstance(one, gymnasium.Env):
            return None
        if one.render_mode is None and mode in one.metadata.get("render_modes", ()):
            one.unwrapped.render_mode = mode  # made without; environments look at it when they draw
        if one.render_mode == mode:
            return one
        one.close()
    return None


def _fits(policy: Player, host: HostEnv) -> bool:
    """Whether observations and actions have the policy's form; bounds may differ from backend to backend."""
    if not isinstance(policy, Policy):
        return True
    ours, theirs = ([_form(s) for s in (x.spec.observation, x.spec.action)] for x in (policy, host))
    return ours == theirs and (host.spec.legal or not policy.spec.legal)


def _form(space: spaces.Space) -> Any:
    return spaces.map_leaves(lambda s: dataclasses.replace(s, low=0, high=0) if isinstance(s, spaces.Box) else s, space)
