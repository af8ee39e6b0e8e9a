"""Observations as pixels."""

from typing import Any

import jax
import numpy as np

from yozh import spaces
from yozh.core import YozhError

SIZE = 320
"""Pixels of the longer side, at least; small boards are enlarged by whole numbers."""
HUES = np.array([[0.13, 0.55, 0.90], [0.95, 0.45, 0.20], [0.30, 0.70, 0.35], [0.85, 0.30, 0.55], [0.60, 0.45, 0.85],
                 [0.90, 0.75, 0.20], [0.25, 0.70, 0.70], [0.60, 0.60, 0.60]])  # fmt: skip
"""Colours of the channels of an observation that is not a picture."""
PHOTO = 36
"""Sides from which an image of bytes shows a scene and not the fields of a board; its channels are then frames, the newest last."""


class Painter:
    """Draws observations `[1, ...]` of a space: the first of their parts that looks like a picture."""

    def __init__(self, place: int, space: spaces.Box):
        self._place, self._channels_first = place, _channels_first(space)
        low, high = space.bounds()
        self._low, self._high = float(low.min()), float(high.max())
        if not space.bounded:
            self._low, self._high = np.inf, -np.inf

    @classmethod
    def of(cls, space: spaces.Space) -> "Painter | None":
        """`None` if no part of the observation is a picture."""
        for place, part in enumerate(jax.tree.leaves(spaces.map_leaves(lambda s: s, space))):
            if isinstance(part, spaces.Box) and len(part.shape) in (2, 3) and sorted(part.shape)[-2] >= 2:
                return cls(place, part)
        return None

    def __call__(self, obs: Any) -> np.ndarray:
        """`[height, width, 3]` of uint8. Where the space has no bounds, what was seen so far has."""
        x = np.asarray(jax.tree.leaves(obs)[self._place])[0]
        x = np.moveaxis(x, 0, -1) if self._channels_first else x
        if x.dtype == np.uint8 and x.ndim == 3 and min(x.shape[:2]) >= PHOTO and x.shape[-1] not in (1, 3):
            x = x[..., -1:]
        level = x.astype(np.float32)
        self._low, self._high = min(self._low, float(level.min())), max(self._high, float(level.max()))
        if x.dtype != np.uint8 and x.ndim == 3 and min(x.shape[:2]) >= PHOTO and x.shape[-1] in (1, 3):
            x = (255 * (level - self._low) / max(self._high - self._low, 1e-6)).astype(np.uint8)
        return frames_from_obs([x], span=(self._low, self._high))[0]


def frames_from_obs(observations: list[np.ndarray], size: int = SIZE, *, span: tuple[float, float] | None = None) -> list[np.ndarray]:  # fmt: skip
    """Observations drawn as pixels: `[height, width]` or `[height, width, channels]`, numbers or bytes.

    Three channels of bytes are a picture; any other channels are given a colour each, dark at the lower end of `span` (that of
    all observations if left out) and bright at the upper one.
    """
    stack = np.stack([np.asarray(o) for o in observations])
    if stack.ndim == 3:
        stack = stack[..., None]
    if stack.ndim != 4 or min(stack.shape[1:3]) < 2:
        raise YozhError(f"observations of shape {stack.shape[1:]} cannot be shown as a picture")
    if stack.dtype == np.uint8 and stack.shape[-1] in (1, 3):
        pixels = np.broadcast_to(stack, (*stack.shape[:3], 3))
    else:
        level = stack.astype(np.float32)
        low, high = (level.min(), level.max()) if span is None else span
        level = (level - low) / max(high - low, 1e-6)
        hues = HUES[np.arange(stack.shape[-1]) % len(HUES)] if stack.shape[-1] > 1 else np.ones((1, 3))
        pixels = (255 * (0.08 + 0.92 * (level[..., None] * hues).max(axis=-2))).astype(np.uint8)
    scale = max(1, size // max(stack.shape[1:3]))
    return list(pixels.repeat(scale, axis=1).repeat(scale, axis=2))


def _channels_first(space: spaces.Box) -> bool:
    return len(space.shape) == 3 and space.shape[0] < min(space.shape[1:])
