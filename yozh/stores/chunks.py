"""Files of a replay's moments, each written once, in a thread beside training; nothing in them is executed."""

import hashlib
import re
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

import numpy as np

from yozh.core import YozhError, require
from yozh.files import atomic_write

NAME = re.compile(r"\.?\d{12}-[0-9a-f]{32}\.safetensors.*")
"""Files that `write` made, or left half-made when it was killed."""


class Piece(TypedDict):
    """One file, as plain data."""

    file: str
    """Made of the first moment and the digest, so that one name has one content."""
    bytes: int
    digest: str
    start: int
    """The first moment."""
    stop: int
    """The moment after the last."""


def write(folder: Path, start: int, stop: int, tensors: dict[str, np.ndarray]) -> Piece:
    from safetensors.numpy import save

    content = save(tensors)
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    name = f"{start:012d}-{digest}.safetensors"
    atomic_write(folder / name, content)
    return Piece(file=name, bytes=len(content), digest=digest, start=start, stop=stop)


def read(folder: Path, piece: Piece) -> dict[str, np.ndarray]:
    """The tensors of a file; a `YozhError` that names it if it is not what was written."""
    from safetensors.numpy import load

    path = folder / piece["file"]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise YozhError(f"{path}: {error.strerror}; the checkpoint needs it: take another one") from None
    found, size = len(content), piece["bytes"]
    require(found == size, f"{path} has {found:,} bytes instead of {size:,}: take another checkpoint")
    sound = hashlib.blake2b(content, digest_size=16).hexdigest() == piece["digest"]
    require(sound, f"{path} is damaged (its checksum is another one): take another checkpoint")
    return load(content)


def sweep(folder: Path, keep: Iterable[str]) -> None:
    """Deletes the files of replays in a folder that are not named."""
    for path in set(folder.iterdir()) - {folder / name for name in keep}:
        if NAME.fullmatch(path.name):
            path.unlink()


class Mirror:
    """A folder to which pieces are written behind training, two at a time at the most."""

    def __init__(self, folder: Path, written: dict[int, Piece], due: int):
        self.folder, self.written = folder, written
        self.due = due
        """The next piece to be handed over; pieces before it are written, under way, given up or not needed."""
        self._flight: dict[int, Future[Piece]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="replay")

    def free(self) -> bool:
        """Whether another piece may be handed over: not while two are under way, nor after an error until `wait`."""
        for number, future in list(self._flight.items()):
            if future.done() and future.exception() is None:
                self.written[number] = self._flight.pop(number).result()
        return len(self._flight) < 2 and not any(future.done() for future in self._flight.values())

    def hand(self, number: int, start: int, stop: int, tensors: dict[str, np.ndarray]) -> None:
        """The tensors must not change any more."""
        self._flight[number] = self._pool.submit(write, self.folder, start, stop, tensors)

    def wait(self) -> None:
        """Until nothing is under way; what could not be written is missing in `written`."""
        for number, future in self._flight.items():
            if future.exception() is None:
                self.written[number] = future.result()
        self._flight.clear()
