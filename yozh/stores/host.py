from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from yozh.core import AnyArray, Drawn, Unroll, YozhError, require
from yozh.stores import chunks
from yozh.stores.chances import Chances
from yozh.stores.columns import Column, Frames, Stack, Steps, stackable
from yozh.stores.prioritised import PrioritisedReplay

FORMAT = "yozh-replay-1"

CHUNK = 2**25
"""Bytes in a file of a checkpoint, about."""

Handle = tuple[Int[np.ndarray, " batch"], Int[np.ndarray, " batch"]]


class HostReplay:
    """`Replay` in the host's memory, as NumPy arrays that change in place: with the same content and key it draws the same windows.
    With `chances`, a `PrioritisedReplay` of the same sizes, it is that store's twin.

    With `stack` the images of the observation (uint8, 2 to 8 frames along their `"first"` or `"last"` axis) are kept as
    single frames, whatever the environment does with its stacks: 10^6 steps of 4x84x84 need 7.4 GB. Each stream has room
    for `slack` frames a step more than one, which episodes need that open with k new ones; where that is not enough,
    the oldest steps go before their time.

    `mirror`, `save` and `restore` put it on disk: steps are written once, in files of some 32 MB. A file's steps are copied when it
    is full, and written by a thread while training goes on. Not for two threads of yours at once.
    """

    def __init__(self, capacity: int, batch: int, window: int = 1, *, stack: Stack | None = None, slack: float = 0.05,
                 chances: PrioritisedReplay | None = None):  # fmt: skip
        require(stack in ("first", "last", None), f"stack must be 'first', 'last' or None, not {stack!r}")
        require(slack >= 0, f"slack must not be negative, and is {slack}")
        sizes = (capacity, batch, window)
        fits = chances is None or sizes == (chances.capacity, chances.batch, chances.window)
        require(fits, f"chances must have the replay's sizes {sizes}")
        self.capacity, self.batch, self.window, self.stack, self.slack = capacity, batch, window, stack, slack
        self._chances = None if chances is None else Chances(chances)

    def init(self, example: Unroll) -> None:
        """Empties the store and shapes it for unrolls like the example (arrays, or only their shapes)."""
        self.streams = example.version.shape[0]
        self.moments = max(self.capacity // self.streams, self.window) + 1
        named = Unroll(example.step, example.action, example.extras, (), jnp.zeros(1, jnp.int32), jnp.ones(1))
        leaves, self._shape = jax.tree_util.tree_flatten_with_path(named)
        self._example = {jax.tree_util.keystr(path): x for path, x in leaves[:-2]}
        self._columns = self._empty()
        if self._chances is not None:
            self._chances.init(self.streams)
        self.head = 0
        self.filled = 0
        self._chunk = max(CHUNK // sum(column.width for column in self._columns.values()), 1)
        self._mirror: chunks.Mirror | None = None

    def add(self, unroll: Unroll) -> None:
        """The first step takes the place of the newest one, whose action was still to come."""
        length = unroll.step.reward.shape[0] - 1
        require(length < self.moments, f"an unroll of {length} steps needs a replay of {length * self.streams} or more")
        where = np.arange(self.head, self.head + length + 1) % self.moments
        leaves = jax.tree.leaves((unroll.step, unroll.action, unroll.extras))
        for column, x in zip(self._columns.values(), leaves, strict=True):
            column.write(where, np.asarray(x))
        self.head, self.filled = self.head + length, min(self.filled + length, self.moments - 1)
        lost = 0
        while not all(column.holds(self._oldest % self.moments) for column in self._columns.values()):
            self.filled, lost = self.filled - 1, lost + 1
        if self._chances is not None:
            self._chances.add(unroll.step, lost)
        if self._mirror is not None:
            self._write_behind(self._mirror)

    def sever(self) -> None:
        """As `Replay.sever`: the newest step closes its episode, and what is added next does not follow it."""
        if self.filled:
            where, streams = np.full((1, self.streams), self.head % self.moments), np.arange(self.streams)
            twice = [column.read(where, streams).repeat(2, axis=0) for column in self._columns.values()]
            unroll: Unroll = jax.tree.unflatten(self._shape, [*twice, *_unweighted(self.streams)])
            self.add(eqx.tree_at(lambda u: u.step.last, unroll, np.ones_like(unroll.step.last)))

    def ready(self) -> bool:
        """Whether `sample` may be called."""
        return self.filled >= self.window and (self._chances is None or self._chances.ready())

    def sample(self, key: Key[Array, ""]) -> tuple[Unroll, Handle]:
        """Windows `[window+1, batch, ...]`, and the stream and the first moment of each, `[batch]`.

        Moments are counted from the first step on. The arrays are the caller's.
        """
        require(self.ready(), f"the replay has {self.filled} transitions a stream, and a window {self.window}")
        version, weight = _unweighted(self.batch)
        if self._chances is None:
            age, stream = self._draw(key, self.batch)
            age = age + self.window
        else:
            place, weight = self._chances.draw(key)
            moment, stream = np.divmod(place, self.streams)
            age = (self.head - moment) % self.moments
        start = self.head - age
        where = (start + np.arange(self.window + 1)[:, None]) % self.moments
        content = [column.read(where, stream) for column in self._columns.values()]
        return jax.tree.unflatten(self._shape, [*content, version, weight]), (stream, start)

    def draws(self, key: Key[Array, ""], n: int) -> Drawn:
        """As `Replay.draws` or, with `chances`, as `PrioritisedReplay.draws`."""
        if self._chances is not None:
            return self._chances.draws(key, n)
        return Drawn((self._draw(key, n)[0] + self.window) * self.streams)

    def _draw(self, key: Key[Array, ""], n: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """How many moments a window ended ago, and its stream."""
        bits = np.asarray(jax.random.bits(key, (2, n), jnp.uint32))
        age = (bits[0] % np.uint32(self.filled - self.window + 1)).astype(np.int64)
        return age, (bits[1] % np.uint32(self.streams)).astype(np.int64)

    def feedback(self, handle: Handle, priority: Float[AnyArray, " batch"] | None) -> None:
        """As `PrioritisedReplay.feedback`, with `chances`; else nothing. A handle is good until the next `add`."""
        if self._chances is not None and priority is not None:
            stream, start = handle
            self._chances.feedback(start % self.moments * self.streams + stream, priority)

    def __len__(self) -> int:
        """Complete transitions of all streams together."""
        return self.filled * self.streams

    @property
    def nbytes(self) -> int:
        """Memory set aside; the system commits it as the store fills."""
        return sum(column.nbytes for column in self._columns.values())

    def mirror(self, folder: Path) -> None:
        """From now on, writes to the folder what `save` will need, beside training.

        An error waits for `save`, which tries again what could not be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if self._mirror is None or self._mirror.folder != folder:
            self._mirror = chunks.Mirror(folder, {}, 0)

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes what the folder does not have yet, and returns what `restore` needs, as plain data.

        Quick where `mirror` has been called in time. Raises `OSError` if the disk is full; earlier checkpoints stand.
        """
        self.mirror(folder)
        assert self._mirror is not None
        self._mirror.wait()
        written = self._mirror.written
        finished = range(self._oldest // self._chunk, self.head // self._chunk)
        for number in finished:
            if number not in written:
                written[number] = chunks.write(folder, *self._cut(number))
        self._mirror.written = {number: written[number] for number in finished}
        self._mirror.due = finished.stop
        return {
            "format": FORMAT,
            "content": self._about,
            "chunk": self._chunk,
            "head": self.head,
            "filled": self.filled,
            "chunks": list(self._mirror.written.values()),
            "tail": chunks.write(folder, *self._cut(finished.stop)),
        } | ({} if self._chances is None else {"chances": chunks.write(folder, self.head, self.head, self._chances.save())})  # fmt: skip

    def restore(self, folder: Path, about: dict[str, Any]) -> None:
        """Takes in what `save` wrote there, and mirrors to that folder from now on. Call `init` before.

        Raises a `YozhError` that names the file which is missing or damaged, or how the stores differ; the content is then
        what it was.
        """
        require(about.get("format") == FORMAT, f"{folder} holds a replay of format {about.get('format')}, not {FORMAT}")
        if about["content"] != self._about:
            pairs = {*about["content"].items()} ^ {*self._about.items()}
            name = min(name for name, _ in pairs)
            held, own = (content.get(name, "nothing") for content in (about["content"], self._about))
            raise YozhError(f"{folder} holds another kind of replay: of {name}, {held} instead of {own}")
        columns = self._empty()
        for piece in (*about["chunks"], about["tail"]):
            where = np.arange(piece["start"], piece["stop"]) % self.moments
            tensors = chunks.read(folder, piece)
            for i, column in enumerate(columns.values()):
                mine = {name.partition(".")[2]: x for name, x in tensors.items() if name.startswith(f"{i}.")}
                column.paste(where, mine)
        if self._chances is not None:
            self._chances.restore(chunks.read(folder, about["chances"]))
        self._columns, self._chunk = columns, about["chunk"]
        self.head, self.filled = about["head"], about["filled"]
        written = {piece["start"] // self._chunk: piece for piece in about["chunks"]}
        self._mirror = chunks.Mirror(folder, written, self.head // self._chunk)

    def prune(self, folder: Path, keep: Sequence[dict[str, Any]]) -> None:
        """Deletes the files in the folder that neither these checkpoints nor the next one need."""
        own = []
        if self._mirror is not None and self._mirror.folder == folder:
            self._mirror.wait()
            own = list(self._mirror.written.values())
        pieces = [
            p for about in keep for p in (*about["chunks"], *(about[k] for k in ("tail", "chances") if k in about))
        ]
        chunks.sweep(folder, [piece["file"] for piece in (*pieces, *own)])

    def _empty(self) -> dict[str, Column]:
        columns: dict[str, Column] = {}
        for name, x in self._example.items():
            shape = (self.moments, self.streams, tuple(x.shape[2:]))
            if self.stack is not None and name.startswith(".step.obs") and stackable(x, self.stack):
                columns[name] = Frames(*shape, self.stack, self.slack)
            else:
                columns[name] = Steps(*shape, x.dtype)
        if self.stack is not None and not any(isinstance(column, Frames) for column in columns.values()):
            found = ", ".join(column.about for name, column in columns.items() if name.startswith(".step.obs"))
            raise YozhError(f"stack={self.stack!r} needs images of uint8 with 2 to 8 frames on that axis, not {found}")
        return columns

    @property
    def _about(self) -> dict[str, str]:
        columns = {name: column.about for name, column in self._columns.items()}
        return columns | ({} if self._chances is None else {"chances": self._chances.store.kind})

    @property
    def _oldest(self) -> int:
        """The first moment that can be sampled."""
        return self.head - self.filled

    def _write_behind(self, mirror: chunks.Mirror) -> None:
        mirror.due = max(mirror.due, self._oldest // self._chunk)
        while mirror.due < self.head // self._chunk and mirror.free():
            mirror.hand(mirror.due, *self._cut(mirror.due))
            mirror.due += 1

    def _cut(self, number: int) -> tuple[int, int, dict[str, np.ndarray]]:
        """A copy of a chunk as far as it is there: `(start, stop, tensors)`, the newest step with it if it is the last."""
        start, stop = max(number * self._chunk, self._oldest), min((number + 1) * self._chunk, self.head + 1)
        where = np.arange(start, stop) % self.moments
        columns = enumerate(self._columns.values())
        return start, stop, {f"{i}.{name}": x for i, column in columns for name, x in column.cut(where).items()}


def _unweighted(batch: int) -> tuple[Int[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """`version` and `weight` of an unroll whose age does not matter."""
    return np.zeros(batch, np.int32), np.ones(batch, np.float32)
