"""What `HostReplay` keeps of each array of an unroll: the steps as they came, or stacks of frames with every frame once."""

import abc
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, Num, Shaped, UInt8

from yozh import spaces

Stack = Literal["first", "last"]
"""The axis of an image along which its frames are stacked."""

DEPTHS = range(2, 9)
"""How many frames a stack may have."""

COLOURS = 3


def guess_stack(space: spaces.Space) -> Stack | None:
    """Along which axis the images of an observation seem to be stacks of frames; `None` where none is, or they disagree.

    An image is a Box of uint8 with three axes or more, and its outer or inner axis of size 2 to 8 is the stack. Three is
    taken for colours: a stack of three must be declared. A wrong guess costs room in `HostReplay`, never content.
    """
    found: set[Stack] = set()

    def look(leaf: spaces.Leaf) -> None:
        if isinstance(leaf, spaces.Box) and leaf.dtype == "uint8" and len(leaf.shape) >= 3:
            depths = set(DEPTHS) - {COLOURS}
            found.update({"first"} if leaf.shape[0] in depths else ())
            found.update({"last"} if leaf.shape[-1] in depths else ())

    spaces.map_leaves(look, space)
    return found.pop() if len(found) == 1 else None


def stackable(x: Any, stack: Stack) -> bool:
    """Whether an array `[T+1, B, ...]` of observations may be kept as frames."""
    return x.dtype == np.uint8 and len(x.shape) >= 5 and x.shape[2 if stack == "first" else -1] in DEPTHS


class Column(abc.ABC):
    """One array of the unrolls, at C consecutive moments of B streams. `where` are moments modulo C."""

    nbytes: int
    """Of the memory set aside; the system commits it as it is written."""
    width: int
    """Bytes that one moment of all streams needs."""
    about: str
    """Kind and sizes; columns that say the same can take each other's tensors."""

    @abc.abstractmethod
    def write(self, where: Int[np.ndarray, " T1"], x: Shaped[np.ndarray, "T1 B *x"]) -> None: ...

    @abc.abstractmethod
    def read(self, where: Int[np.ndarray, "n b"], stream: Int[np.ndarray, " b"]) -> Shaped[np.ndarray, "n b *x"]: ...

    def holds(self, at: int) -> bool:
        """Whether the moment, once written, can still be read in every stream."""
        return True

    @abc.abstractmethod
    def cut(self, where: Int[np.ndarray, " n"]) -> dict[str, np.ndarray]:
        """A copy of consecutive moments, complete in itself."""

    @abc.abstractmethod
    def paste(self, where: Int[np.ndarray, " n"], tensors: dict[str, np.ndarray]) -> None:
        """Takes in what `cut` gave; the last moment pasted becomes the newest one."""


class Steps(Column):
    """Everything as it came."""

    def __init__(self, moments: int, streams: int, shape: tuple[int, ...], dtype: Any):
        self._content = np.zeros((moments, streams, *shape), dtype)
        self.nbytes, self.width = self._content.nbytes, self._content[0].nbytes
        self.about = f"{self._content.dtype}{list(self._content.shape)}"

    def write(self, where: Int[np.ndarray, " T1"], x: Shaped[np.ndarray, "T1 B *x"]) -> None:
        self._content[where] = x

    def read(self, where: Int[np.ndarray, "n b"], stream: Int[np.ndarray, " b"]) -> Shaped[np.ndarray, "n b *x"]:
        return self._content[where, stream[None]]

    def cut(self, where: Int[np.ndarray, " n"]) -> dict[str, np.ndarray]:
        return {"steps": self._content[where]}

    def paste(self, where: Int[np.ndarray, " n"], tensors: dict[str, np.ndarray]) -> None:
        self._content[where] = tensors["steps"]


class Frames(Column):
    """Stacks of k frames. Each stream has a ring of frames, and each step the number of its newest frame: the stack is the
    k frames that end there. A step adds those frames by which it differs from the step before, shifted: none if it is the
    same, one as a rule, all k where an episode opens. Frames are numbered from the stream's beginning, k black ones first.
    """

    def __init__(self, moments: int, streams: int, shape: tuple[int, ...], stack: Stack, slack: float):
        self._last_axis = stack == "last"
        self._depth, *frame = (shape[-1], *shape[:-1]) if self._last_axis else shape
        self._room = int((1 + slack) * moments) + self._depth
        self._content = np.zeros((streams, self._room, *frame), np.uint8)
        self._newest = np.zeros((moments, streams), np.int64)
        self._count = np.full(streams, self._depth, np.int64)
        self._before = np.zeros((streams, self._depth, *frame), np.uint8)
        self.nbytes = self._content.nbytes + self._newest.nbytes + self._before.nbytes
        self.width = self._content[:, 0].nbytes + self._newest[0].nbytes
        self.about = f"stacks uint8{[moments, streams, *shape]}, frames {stack}, {self._room} frames a stream"

    def write(self, where: Int[np.ndarray, " T1"], x: UInt8[np.ndarray, "T1 B *x"]) -> None:
        stacks = np.ascontiguousarray(np.moveaxis(x, -1, 2)) if self._last_axis else x
        before = self._before
        for at, now in zip(where, stacks, strict=True):
            for content, i, old, new in zip(self._content, range(len(now)), before, now, strict=True):
                fresh = _fresh(old, new)
                slots = np.arange(self._count[i], self._count[i] + fresh) % self._room
                content[slots] = new[self._depth - fresh :]
                self._count[i] += fresh
            self._newest[at] = self._count - 1
            before = now
        self._before = before.copy()

    def read(self, where: Int[np.ndarray, "n b"], stream: Int[np.ndarray, " b"]) -> UInt8[np.ndarray, "n b *x"]:
        slots = (self._newest[where, stream[None]][..., None] + np.arange(1 - self._depth, 1)) % self._room
        rows = self._content.reshape(-1, *self._content.shape[2:])
        stacks = rows.take(stream[None, :, None] * self._room + slots, axis=0)
        return np.moveaxis(stacks, 2, -1) if self._last_axis else stacks

    def holds(self, at: int) -> bool:
        return bool((self._newest[at] + 1 - self._depth >= self._count - self._room).all())

    def cut(self, where: Int[np.ndarray, " n"]) -> dict[str, np.ndarray]:
        newest = self._newest[where]
        frames = [c.take(span, axis=0) for c, span in zip(self._content, self._spans(newest), strict=True)]
        return {"newest": newest, "frames": np.concatenate(frames)}

    def paste(self, where: Int[np.ndarray, " n"], tensors: dict[str, np.ndarray]) -> None:
        newest = self._newest[where] = tensors["newest"]
        spans = self._spans(newest)
        frames = np.split(tensors["frames"], np.cumsum([len(span) for span in spans])[:-1])
        for content, span, part in zip(self._content, spans, frames, strict=True):
            content[span] = part
        self._count = newest[-1] + 1
        streams = np.arange(newest.shape[1])
        stacks = self.read(np.broadcast_to(where[-1], (1, len(streams))), streams)[0]
        self._before = np.moveaxis(stacks, -1, 1) if self._last_axis else stacks

    def _spans(self, newest: Num[np.ndarray, "n B"]) -> list[Int[np.ndarray, " _"]]:
        """Where the frames of consecutive steps lie, for each stream."""
        ends = zip(newest[0] + 1 - self._depth, newest[-1] + 1, strict=True)
        return [np.arange(first, end) % self._room for first, end in ends]


def _fresh(old: UInt8[np.ndarray, "k *x"], new: UInt8[np.ndarray, "k *x"]) -> int:
    """How many frames at the end of a stack are not in the one before it."""
    depth = len(old)
    return next(n for n in range(depth + 1) if (new[: depth - n] == old[n:]).all())
