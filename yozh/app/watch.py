"""Seeing a policy at work: in a window, or in a film."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from yozh.app.face import options_played
from yozh.app.scene import Picture, has_display, named, set_scene
from yozh.app.video import camera
from yozh.core import YozhError, require
from yozh.runners.policy import Policy, load

LONGEST = 10_000
"""Steps of an episode that are shown."""


@dataclasses.dataclass(frozen=True)
class Watched:
    """What was shown."""

    path: Path | None
    """The film; `None` after a window."""
    returns: tuple[float, ...]
    """Of each episode that was seen to its end (or for 10,000 steps)."""
    lengths: tuple[int, ...]


def watch(policy: Policy | str | Path, env: Any = None, *, out: str | Path | None = None, episodes: int = 1, seed: int = 0,
          env_options: Mapping[str, Any] | None = None) -> Watched:  # fmt: skip
    """Shows whole episodes of the policy, without exploration: in a window at the environment's pace, or in a film, `out`, an
    `.mp4` (extra `video`) or a `.gif`.

    `env` is whatever `yozh.make` takes, and the policy's own if left out, with the options that it was trained with, changed by
    `env_options`. Gymnasium draws its environments, also for policies
    that were trained in the same environment elsewhere; of others the observations are shown, if they look like pictures. A
    window ends with its cross or Escape.
    """
    require(episodes > 0, f"episodes must be positive, not {episodes}")
    require(
        out is not None or has_display(),
        "there is no display for a window: give a file, --out policy.mp4 or policy.gif",
    )
    policy = policy if isinstance(policy, Policy) else load(policy)
    options = options_played(policy, env, env_options)
    env = policy.env if env is None else env
    require(env is not None, "the policy does not say where it was trained: name an environment")
    scene = set_scene(policy, env, window=out is None, options=options)
    returns, lengths = [], []
    try:
        with _window(named(env), scene.rate, scene.own_window) if out is None else _film(out, scene.rate) as show:
            for picture in scene.play(policy, episodes=episodes, longest=LONGEST, seed=seed):
                if not show(picture):
                    break
                if picture.last:
                    returns.append(picture.total)
                    lengths.append(picture.steps)
    finally:
        scene.host.close()
    return Watched(None if out is None else Path(out), tuple(returns), tuple(lengths))


@contextmanager
def _film(out: str | Path, rate: float) -> Iterator[Callable[[Picture], bool]]:
    with camera(out, rate) as take:

        def show(picture: Picture) -> bool:
            assert picture.pixels is not None, "films are made of pixels"
            take(picture.pixels)
            return True

        yield show


@contextmanager
def _window(title: str, rate: float, own: bool) -> Iterator[Callable[[Picture], bool]]:
    """A function that shows a picture until the next is due; it is False once the window was closed.

    Where the environment opened a window of its own, that one is looked at.
    """
    if own:
        yield lambda picture: _open_still(title, picture)
        return
    try:
        import pygame
    except ImportError:
        raise YozhError(
            "a window needs pygame: pip install 'yozh[classic]'; or give a file, --out policy.gif"
        ) from None
    try:
        pygame.display.init()
    except pygame.error as error:
        raise YozhError(f"no window opens here ({error}): give a file, --out policy.mp4 or policy.gif") from None
    due = time.perf_counter()

    def show(picture: Picture) -> bool:
        nonlocal due
        assert picture.pixels is not None, "a scene without a window of its own has pixels"
        height, width = picture.pixels.shape[:2]
        screen = pygame.display.get_surface()
        if screen is None or screen.get_size() != (width, height):
            screen = pygame.display.set_mode((width, height))
        pygame.surfarray.blit_array(screen, np.swapaxes(picture.pixels, 0, 1))
        pygame.display.flip()
        due = max(due + 1 / rate, time.perf_counter())
        time.sleep(max(0.0, due - time.perf_counter()))
        return _open_still(title, picture)

    try:
        yield show
    finally:
        pygame.display.quit()


def _open_still(title: str, picture: Picture) -> bool:
    """Writes into the title bar of pygame's window, if there is one, and sees whether it was closed."""
    pygame: Any = sys.modules.get("pygame")
    if pygame is None or not pygame.display.get_init():
        return True
    pygame.display.set_caption(f"{title}, episode {picture.episode}: {picture.total:.4g} after {picture.steps} steps")
    keys = [e.key for e in pygame.event.get(pygame.KEYDOWN)]
    return not pygame.event.get(pygame.QUIT) and pygame.K_ESCAPE not in keys
