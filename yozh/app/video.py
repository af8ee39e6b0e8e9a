"""A short moving picture of a policy at work."""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from yozh.app.face import options_played
from yozh.app.pictures import frames_from_obs
from yozh.app.scene import RATE, Player, set_scene
from yozh.core import YozhError, require
from yozh.files import atomic_write
from yozh.runners.policy import Policy

__all__ = ["camera", "film", "frames_from_obs", "record"]

LIMIT = 1_500_000
"""Bytes that a picture may take: it travels inside the report."""
WIDEST = 400
"""Pixels of a GIF's width."""


def film(policy: Player, env: Any, path: str | Path, *, episodes: int = 1, max_steps: int = 600, seed: int = 0) -> Path:
    """Plays `episodes` and writes them to `path` as a GIF of at most `LIMIT` bytes.

    Gymnasium draws its own environments; of others the observations are shown, if they look like pictures.
    """
    options = options_played(policy, env, None) if isinstance(policy, Policy) else {}
    scene = set_scene(policy, env, options=options)
    stride = max(1, round(scene.rate / RATE))
    try:
        shots = scene.play(policy, episodes=episodes, longest=max_steps, seed=seed)
        frames = [s.pixels for t, s in enumerate(shots) if t % stride == 0 and s.pixels is not None]
    finally:
        scene.host.close()
    return record(frames, path, rate=scene.rate / stride)


def record(frames: list[np.ndarray], path: str | Path, *, rate: float = RATE, limit: float = LIMIT) -> Path:
    """Writes RGB frames `[height, width, 3]` of uint8 as a GIF of at most `limit` bytes: smaller, then shorter, if need be."""
    if not frames:
        raise YozhError(f"there is nothing to show in {path}")
    images = [Image.fromarray(f) for f in frames]
    width = min(images[0].width, WIDEST)
    data = _gif(images, width, rate)
    while len(data) > limit and width > 160:
        width = max(160, int(width * 0.8))
        data = _gif(images, width, rate)
    while len(data) > limit and len(images) > 1:
        images = images[: max(1, int(len(images) * 0.9 * limit / len(data)))]
        data = _gif(images, width, rate)
    atomic_write(path, data)
    return Path(path)


@contextlib.contextmanager
def camera(path: str | Path, rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that takes RGB frames, which are in the file, an MP4 or a GIF by its name, when the context closes in order."""
    path = Path(path)
    require(path.suffix in _CAMERAS, f"a film is an .mp4 or a .gif, not {path.name}")
    require(path.parent.is_dir(), f"there is no folder {path.parent} for {path.name}")
    with _CAMERAS[path.suffix](path, rate) as take:
        yield take


@contextlib.contextmanager
def _gif_camera(path: Path, rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    frames: list[np.ndarray] = []
    stride, seen = max(1, round(rate / RATE)), iter(range(10**9))

    def take(frame: np.ndarray) -> None:
        if next(seen) % stride == 0:
            image = Image.fromarray(frame)
            image.thumbnail((WIDEST, 10 * WIDEST))  # long films are held in memory until they end
            frames.append(np.asarray(image))

    yield take
    record(frames, path, rate=rate / stride, limit=float("inf"))


@contextlib.contextmanager
def _mp4_camera(path: Path, rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    try:
        import imageio_ffmpeg
    except ImportError:
        raise YozhError(f"{path.name} needs ffmpeg: pip install 'yozh[video]'; a .gif needs nothing") from None
    with tempfile.TemporaryDirectory() as folder:
        whole, writer = Path(folder) / path.name, None

        def take(frame: np.ndarray) -> None:
            nonlocal writer
            frame = _even(frame)
            if writer is None:
                size = frame.shape[1], frame.shape[0]
                writer = imageio_ffmpeg.write_frames(str(whole), size, fps=rate, macro_block_size=1, quality=7)
                with warnings.catch_warnings():
                    # JAX warns of every fork; this one becomes ffmpeg at once
                    warnings.filterwarnings("ignore", message=r"os\.fork", category=RuntimeWarning)
                    writer.send(None)
            writer.send(frame)

        try:
            yield take
        finally:
            if writer is not None:
                writer.close()
        require(whole.is_file(), f"there is nothing to show in {path}")
        atomic_write(path, whole.read_bytes())


_CAMERAS = {".gif": _gif_camera, ".mp4": _mp4_camera}


def _even(frame: np.ndarray) -> np.ndarray:
    """With even sides, as the codec wants them, the last row and column twice if need be; contiguous."""
    height, width = frame.shape[:2]
    return np.ascontiguousarray(np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))


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
