"""All that a run is, on disk: one file a checkpoint, written beside the training and read with suspicion."""

import hashlib
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from yozh.core import YozhError, require
from yozh.files import atomic_write, safetensors
from yozh.runners.policy import check_header

FORMAT = "yozh-checkpoint-1"


class Damaged(YozhError):
    """The file is not as it was written."""


Told = Callable[[dict[str, Any]], None]
"""Takes what `Observer.on_checkpoint` takes."""


class Checkpoints:
    """The newest `keep` checkpoints of a run, in one folder.

    `save` copies the run and returns; a thread writes it. What a full disk or a missing folder makes of that is told to
    `told`, and the checkpoints before it stand.
    """

    def __init__(self, folder: Path, keep: int, told: Told):
        require(keep > 0, f"keep must be positive, not {keep}")
        self.folder, self.keep, self._told = folder, keep, told
        self.replay = folder / "replay"
        """Where a replay in the host's memory puts its files."""
        self._writing: threading.Thread | None = None
        self._done: list[dict[str, Any]] = []

    def save(self, run: PyTree, steps: int, about: dict[str, Any]) -> None:
        """`about` is JSON: what is needed to build the objects that the arrays belong to."""
        began = time.perf_counter()
        self.wait()
        tensors = {name: np.array(jax.random.key_data(x) if _is_key(x) else x) for name, x in named(run)}
        path = self.folder / f"{steps:012d}.safetensors"
        row = {"steps": steps, "path": str(path), "error": None}
        self._writing = threading.Thread(target=self._write, args=(tensors, about, path, row), name="yozh-checkpoint")
        self._writing.start()
        row["seconds"] = time.perf_counter() - began

    def wait(self) -> None:
        """Until nothing is being written; then tells what was."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        while self._done:
            self._told(self._done.pop(0))

    def _write(self, tensors: dict[str, np.ndarray], about: dict[str, Any], path: Path, row: dict[str, Any]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(about)
            atomic_write(
                path, safetensors(tensors, {"format": FORMAT, "about": text, "checksum": checksum(tensors, text)})
            )
            for old in existing(self.folder)[self.keep :]:
                old.unlink(missing_ok=True)
        except Exception as error:  # in a thread, where nobody else would hear of it
            row["error"] = getattr(error, "strerror", None) or str(error)
        self._done.append(row)


def existing(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted(folder.glob("[0-9]*.safetensors"), reverse=True)


def newest(folder: Path) -> tuple[Path, dict[str, Any], dict[str, np.ndarray]]:
    """Path, description and arrays of the newest sound checkpoint; damaged ones are passed over with a warning."""
    for path in existing(folder):
        try:
            return path, *read(path)
        except Damaged as error:
            warnings.warn(f"{error}; the checkpoint before it is taken", stacklevel=2)
    raise YozhError(f"there is no sound checkpoint in {folder}")


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Description and arrays. Raises `Damaged` if the file is not a checkpoint as it was written."""
    from safetensors import SafetensorError, safe_open

    try:
        check_header(path, "checkpoint")
        with safe_open(str(path), framework="numpy") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise Damaged(f"{path} is not a checkpoint: {error}") from None
    except YozhError as error:
        raise Damaged(str(error)) from None
    found = about.get("format")
    if found != FORMAT:
        raise Damaged(f"{path} is {found or 'of unknown format'}, and this version of Yozh reads {FORMAT}")
    if about.get("checksum") != checksum(tensors, about.get("about", "")):
        raise Damaged(f"{path} is damaged: its content has another checksum")
    return json.loads(about["about"]), tensors


def described(path: Path) -> dict[str, Any]:
    """The description alone."""
    from safetensors import safe_open

    with safe_open(str(path), framework="numpy") as file:
        return json.loads(file.metadata()["about"])


def restore(like: PyTree, tensors: dict[str, np.ndarray], path: Path) -> PyTree:
    """A run of the structure of `like` (shapes suffice) with the arrays of the checkpoint."""
    names = [name for name, _ in named(like)]
    odd = sorted(set(names) ^ set(tensors))
    require(not odd, lambda: f"{path} is of another agent or environment: only one of the two has {', '.join(odd[:3])}")
    leaves, tree = jax.tree.flatten(like)
    return jax.tree.unflatten(
        tree, [_leaf(x, tensors[name], name, path) for name, x in zip(names, leaves, strict=True)]
    )


def _leaf(like: Any, found: np.ndarray, name: str, path: Path) -> Array:
    dtype, shape = ("uint32", (*like.shape, 2)) if _is_key(like) else (like.dtype, like.shape)
    same = found.dtype == dtype and found.shape == shape
    require(same, lambda: f"{path}: {name} is {found.dtype}{list(found.shape)}, and the run needs {dtype}{list(shape)}")
    return jax.random.wrap_key_data(found) if _is_key(like) else jnp.asarray(found)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def named(tree: PyTree) -> Iterator[tuple[str, Any]]:
    """Every array under its path."""
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="."), x


def checksum(tensors: dict[str, np.ndarray], text: str) -> str:
    """Of names, types, shapes, content and description."""
    found = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        x = np.ascontiguousarray(tensors[name])
        found.update(f"{name} {x.dtype.str} {x.shape}".encode())
        found.update(x.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
