"""A short moving picture of a policy at work."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from yozh.core import BatchedEnv, YozhError
from yozh.files import atomic_write

LIMIT = 1_500_000
"""Bytes that a picture may take: it travels inside the report."""
RATE = 25.0
"""Pictures a second that look like motion."""
HUES = np.array([[0.13, 0.55, 0.90], [0.95, 0.45, 0.20], [0.30, 0.70, 0.35], [0.85, 0.30, 0.55], [0.60, 0.45, 0.85],
                 [0.90, 0.75, 0.20], [0.25, 0.70, 0.70], [0.60, 0.60, 0.60]])  # fmt: skip
"""Colours of the channels of an observation that is not a picture."""

Policy = Callable[..., Any]


def film(policy: Policy, env_id: str, path: str | Path, *, episodes: int = 1, max_steps: int = 600, seed: int = 0) -> Path:  # fmt: skip
    """Plays `episodes` and writes them to `path` as a GIF.

    Gymnasium draws its own environments; of others the observations are shown, if they look like pictures.
    """
    frames, rate = _gymnasium_frames(policy, env_id, episodes, max_steps, seed) or _own_frames(
        policy, env_id, episodes, max_steps, seed
    )
    stride = max(1, round(rate / RATE))
    return record(frames[::stride], path, rate=rate / stride)


def record(frames: list[np.ndarray], path: str | Path, *, rate: float = RATE) -> Path:
    """Writes RGB frames `[height, width, 3]` of uint8 as a GIF of at most `LIMIT` bytes: smaller, then shorter, if need be."""
    if not frames:
        raise YozhError(f"there is nothing to show in {path}")
    images = [Image.fromarray(f) for f in frames]
    width = min(images[0].width, 400)
    data = _gif(images, width, rate)
    while len(data) > LIMIT and width > 160:
        width = max(160, int(width * 0.8))
        data = _gif(images, width, rate)
    while len(data) > LIMIT and len(images) > 1:
        images = images[: max(1, int(len(images) * 0.9 * LIMIT / len(data)))]
        data = _gif(images, width, rate)
    atomic_write(path, data)
    return Path(path)


def frames_from_obs(observations: list[np.ndarray], size: int = 320) -> list[np.ndarray]:
    """Observations drawn as pixels: `[height, width]` or `[height, width, channels]`, numbers or bytes.

    Three channels of bytes are a picture; any other channels are given a colour each.
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
        low, high = level.min(), level.max()
        level = (level - low) / max(high - low, 1e-6)
        hues = HUES[np.arange(stack.shape[-1]) % len(HUES)] if stack.shape[-1] > 1 else np.ones((1, 3))
        pixels = (255 * (0.08 + 0.92 * (level[..., None] * hues).max(axis=-2))).astype(np.uint8)
    scale = max(1, size // max(stack.shape[1:3]))
    return list(pixels.repeat(scale, axis=1).repeat(scale, axis=2))


def _gif(images: list[Image.Image], width: int, rate: float) -> bytes:
    size = (width, max(1, round(images[0].height * width / images[0].width)))
    small = [image.resize(size, Image.Resampling.LANCZOS if size[0] < image.width else Image.Resampling.NEAREST) for image in images]  # fmt: skip
    sample = small[:: max(1, len(small) // 8)]
    sheet = Image.new("RGB", (size[0], size[1] * len(sample)))
    for i, image in enumerate(sample):
        sheet.paste(image, (0, i * size[1]))
    palette = sheet.quantize(64, method=Image.Quantize.MEDIANCUT)
    drawn = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in small]
    buffer = io.BytesIO()
    drawn[0].save(
        buffer, "GIF", save_all=True, append_images=drawn[1:], duration=round(1000 / rate), loop=0, optimize=False
    )
    return buffer.getvalue()


def _gymnasium_frames(policy: Policy, env_id: str, episodes: int, max_steps: int, seed: int) -> Any:
    import gymnasium

    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    if "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        env = gymnasium.make(env_id, render_mode="rgb_array")
    except (gymnasium.error.Error, ImportError, TypeError):
        return None
    frames = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed + episode)
        _forget(policy)
        frames.append(np.asarray(env.render()))
        for _ in range(max_steps):
            obs, _, terminated, truncated, _ = env.step(policy(obs))
            frames.append(np.asarray(env.render()))
            if terminated or truncated:
                break
    env.close()
    return frames, float(env.metadata.get("render_fps") or RATE)


def _own_frames(policy: Policy, env_id: str, episodes: int, max_steps: int, seed: int) -> Any:
    import jax

    import yozh
    from yozh import spaces

    env = yozh.make(env_id, 1)
    if not isinstance(env, BatchedEnv) or not env.pure or not isinstance(env.spec.observation, spaces.Box):
        raise YozhError(f"{env_id} cannot be drawn")
    reset, advance = jax.jit(env.reset), jax.jit(env.step)
    frames = []
    for key in jax.random.split(jax.random.key(seed), episodes):
        state, step = reset(key)
        _forget(policy)
        seen = [np.asarray(step.obs[0])]
        for _ in range(max_steps):
            legal = {"legal": np.asarray(step.extras["legal"][0])} if env.spec.legal else {}
            action = np.asarray(policy(seen[-1], **legal))[None]
            state, step = advance(state, action)
            seen.append(np.asarray(step.obs[0]))
            if step.last[0]:
                break
        frames += frames_from_obs(seen)
    return frames, 8.0


def _forget(policy: Policy) -> None:
    if hasattr(policy, "reset"):
        policy.reset()
