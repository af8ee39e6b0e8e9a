"""The replay in host memory: the same windows as `Replay`, frames once, and files that are written once."""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yozh import spaces
from yozh.core import TimeStep, Unroll, YozhError
from yozh.stores import HostReplay, PrioritisedReplay, Replay, chunks, columns, guess_stack, host

SIDE = 5


class Camera:
    """Consecutive unrolls of B streams whose images are stacks of four noisy frames, with episodes of random length."""

    def __init__(self, streams: int, stack: str = "first", *, episode: float = 12, seed: int = 0, side: int = SIDE):
        self.random, self.streams, self.stack, self.episode, self.side = np.random.default_rng(seed), streams, stack, episode, side  # fmt: skip
        self.frames = np.zeros((streams, 4, side, side), np.uint8)
        self.last = np.ones(streams, bool)
        self.now: Any = None

    def step(self) -> tuple[TimeStep, Any, Any]:
        random, b, first = self.random, self.streams, self.last
        new = random.integers(0, 256, (b, self.side, self.side), np.uint8)
        self.frames = np.concatenate([self.frames[:, 1:], new[:, None]], 1)
        self.frames[first] = new[first, None]
        self.last = random.random(b) < 1 / self.episode
        image = self.frames if self.stack == "first" else np.ascontiguousarray(np.moveaxis(self.frames, 1, -1))
        obs = {"image": image, "speed": random.normal(size=(b, 2)).astype(np.float32), "lives": random.integers(0, 5, b, np.int32)}  # fmt: skip
        reward, discount = random.normal(size=b).astype(np.float32), 1 - self.last.astype(np.float32)
        legal = {"legal": random.random((b, 3)) < 0.5}
        return TimeStep(obs, reward, discount, first, self.last, legal), self.choice(), self.choice() / 7

    def choice(self) -> np.ndarray:
        return self.random.integers(0, 3, self.streams).astype(np.float32)

    def unroll(self, length: int) -> Unroll:
        self.now = self.now or self.step()
        again = (self.now[0], self.choice(), self.choice() / 7)
        steps = [again, *(self.step() for _ in range(length))]
        self.now = steps[-1]
        step, action, value = jax.tree.map(lambda *x: np.stack(x), *steps)
        plain = Unroll(step, action, {"value": value}, (), jnp.zeros(self.streams, jnp.int32), jnp.ones(self.streams))
        return jax.tree.map(np.asarray, plain)


add, draw, sever, forget, feedback = (
    eqx.filter_jit(f)
    for f in (
        lambda store, state, unroll: store.add(state, unroll),
        lambda store, state, key: store.sample(state, key),
        lambda store, state: store.sever(state),
        lambda store, state: store.forget(state),
        lambda store, state, handle, priority: store.feedback(state, handle, priority),
    )
)


def same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert isinstance(x, np.ndarray) and x.dtype == y.dtype and x.shape == y.shape
        np.testing.assert_array_equal(x, y)


def equal_samples(a: HostReplay, b: HostReplay) -> None:
    assert (a.head, a.filled, len(a)) == (b.head, b.filled, len(b))
    for i in range(4):
        same(a.sample(jax.random.key(i)), b.sample(jax.random.key(i)))


def device(kind: str | None, capacity: int, batch: int, window: int) -> Replay | PrioritisedReplay:
    return Replay(capacity, batch, window) if kind is None else PrioritisedReplay(capacity, batch, window, 0.7, kind)


def twin_of(store: Replay | PrioritisedReplay, **options: Any) -> HostReplay:
    chances = store if isinstance(store, PrioritisedReplay) else None
    return HostReplay(store.capacity, store.batch, store.window, chances=chances, **options)


def both(capacity: int, streams: int, length: int, window: int, turns: int, *, shuffled: bool = False, kind: str | None = None, **options: Any) -> HostReplay:  # fmt: skip
    """Feeds both stores the same unrolls and priorities, and compares what they draw on the way."""
    camera = Camera(streams, options.get("stack") or "first")
    store = device(kind, capacity, 16, window)
    twin = twin_of(store, **options)
    example = camera.unroll(length)
    state = store.init(example)
    twin.init(jax.eval_shape(lambda: example))
    for turn in range(turns):
        unroll = camera.unroll(length)
        if shuffled:  # neither consecutive stacks nor the step before: whatever comes is kept
            unroll = jax.tree.map(lambda x: camera.random.permuted(x, axis=0), unroll)
        if turn % 7 == 4:
            state = sever(store, state)
            twin.sever()
            state = forgotten(store, state, twin)
        state = add(store, state, unroll)
        twin.add(unroll)
        ring = state if kind is None else state.ring
        assert twin.filled <= ring.filled and twin.head % twin.moments == ring.head
        if not shuffled:
            assert twin.filled == ring.filled and twin.ready() == bool(store.ready(state))
        state = forgotten(store, state, twin)
        if twin.ready() and (turn % 3 == 0 or turn == turns - 1):
            left = eqx.tree_at(lambda s: s.filled, state, jnp.int32(twin.filled)) if kind is None else state
            expected, handle = draw(store, left, jax.random.key(turn))
            found, ours = twin.sample(jax.random.key(turn))
            same(found, jax.tree.map(np.asarray, expected))
            priority = camera.random.gamma(1.0, size=16).astype(np.float32)
            twin.feedback(ours, priority)
            state = feedback(store, state, handle, jnp.asarray(priority))
    assert turns * length > 3 * twin.moments, "the ring is to wrap many times"
    return twin


def forgotten(store: Any, state: Any, twin: HostReplay) -> Any:
    """Without the steps whose frames are gone in the twin."""
    while isinstance(store, PrioritisedReplay) and state.ring.filled > twin.filled:
        state = forget(store, state)
    return state


@pytest.mark.parametrize("stack", ["first", "last", None])
@pytest.mark.parametrize(
    ("capacity", "streams", "length", "window"), [(30, 3, 1, 1), (40, 2, 4, 3), (7, 1, 5, 2), (64, 4, 7, 5)]
)
def test_draws_what_replay_draws(capacity: int, streams: int, length: int, window: int, stack: Any):
    both(capacity, streams, length, window, 90 // length + 10, stack=stack, slack=1.5)


@pytest.mark.parametrize(
    ("capacity", "streams", "length", "window", "kind"), [(30, 3, 1, 1, "proportional"), (64, 4, 2, 5, "rank")]
)
def test_draws_what_prioritised_replay_draws(capacity: int, streams: int, length: int, window: int, kind: str):
    both(capacity, streams, length, window, 90 // length + 10, kind=kind, stack="first", slack=1.5)


@pytest.mark.parametrize(
    ("stack", "spare", "kind"), [("last", 0, None), *(("first", n, None) for n in range(9)), ("first", 3, "proportional")]
)  # fmt: skip
def test_whatever_the_environment_does_content_is_right(stack: Any, spare: int, kind: str | None):
    twin = both(60, 2, 3, 1, 60, shuffled=True, kind=kind, stack=stack, slack=(spare + 0.5) / 31)
    assert 0 < twin.filled < 30, "four frames a step: only the newest quarter has room"


def fresh(stack: Any = "first", *, streams: int = 2, capacity: int = 200, batch: int = 256, length: int = 4, side: int = SIDE, kind: str | None = None, **camera: Any) -> tuple[HostReplay, Camera]:  # fmt: skip
    store, world = (
        twin_of(device(kind, capacity, batch, 2), stack=stack, slack=1.0),
        Camera(streams, stack, side=side, **camera),
    )
    store.init(Camera(streams, stack, side=side).unroll(length))
    return store, world


def run(store: HostReplay, world: Camera, turns: int, length: int = 4) -> None:
    for turn in range(turns):
        store.add(world.unroll(length))
        if turn % 5 == 0 and store.ready():
            handle = store.sample(jax.random.key(turn))[1]
            store.feedback(handle, np.arange(store.batch, dtype=np.float32))


@pytest.mark.parametrize("stack", ["first", "last"])
def test_frames_are_stored_once(stack: Any):
    store, world = fresh(stack, episode=1e9, capacity=1000)
    run(store, world, 50)
    column = next(c for c in store._columns.values() if isinstance(c, columns.Frames))
    assert (column._count == 4 + 4 + 200).all(), "black ones, those of the opening stack, then one a step"
    plain, _ = fresh(None, capacity=1000)
    images = 501 * 2 * 4 * SIDE**2
    assert store.nbytes < plain.nbytes - images + 2.1 / 4 * images + 501 * 2 * 8


def test_skipped_and_frozen_frames():
    frames = np.arange(12, dtype=np.uint8)[:, None]
    old = frames[:4]
    assert [columns._fresh(old, frames[n : n + 4]) for n in range(6)] == [0, 1, 2, 3, 4, 4]
    assert columns._fresh(old, old[::-1]) == 3, "begins with the frame that the other ends with"
    assert columns._fresh(old, np.stack([old[1], old[2], old[0], old[3]])) == 4


def test_a_sample_is_the_callers():
    store, world = fresh()
    run(store, world, 20)
    key = jax.random.key(3)
    batch, (stream, moment) = store.sample(key)
    kept = jax.tree.map(np.copy, batch)
    assert stream.shape == moment.shape == (256,) and (moment >= store.head - store.filled).all()
    for x in jax.tree.leaves(batch):
        x[...] = 0
    same(store.sample(key)[0], kept)
    store.feedback((stream, moment), None)
    same(store.sample(key)[0], kept)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Box((4, 84, 84), 0, 255, "uint8"), "first"),
        (spaces.Box((84, 84, 4), 0, 255, "uint8"), "last"),
        (spaces.Box((84, 84, 3), 0, 255, "uint8"), None),
        (spaces.Box((4, 84, 84, 3), 0, 255, "uint8"), "first"),
        (spaces.Box((4, 84, 84)), None),
        (spaces.Box((84, 84), 0, 255, "uint8"), None),
        (spaces.Box((4, 84, 4), 0, 255, "uint8"), None),
        (spaces.Dict.of({"a": spaces.Box((2, 9, 9), 0, 255, "uint8"), "b": spaces.Discrete(3)}), "first"),
        (spaces.Tuple((spaces.Box((2, 9, 9), 0, 9, "uint8"), spaces.Box((9, 9, 2), 0, 9, "uint8"))), None),
    ],
)
def test_guesses_the_axis(space: spaces.Space, expected: str | None):
    assert guess_stack(space) == expected


def test_refuses_what_it_cannot_do():
    camera = Camera(2)
    with pytest.raises(YozhError, match=r"chances must have the replay's sizes \(100, 8, 1\)"):
        HostReplay(100, 8, chances=PrioritisedReplay(100, 9))
    with pytest.raises(YozhError, match="slack must not be negative"):
        HostReplay(100, 8, stack="first", slack=-0.1)
    with pytest.raises(YozhError, match="frames on that axis"):
        HostReplay(100, 8, stack="last").init(Camera(2, side=9).unroll(2))
    store = HostReplay(20, 8)
    store.init(camera.unroll(2))
    with pytest.raises(YozhError, match="0 transitions"):
        store.sample(jax.random.key(0))
    with pytest.raises(YozhError, match="needs a replay of 22"):
        store.add(camera.unroll(11))


def equal_samples_after(store: HostReplay, folder: Path, about: dict[str, Any], kind: str | None = None) -> None:
    twin, _ = fresh(kind=kind)
    twin.restore(folder, about)
    equal_samples(store, twin)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "CHUNK", 2000)


def stored(folder: Path) -> dict[str, float]:
    """When each file was written, while nothing is being written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize(("stack", "kind"), [("first", None), ("last", None), (None, None), ("first", "rank")])  # fmt: skip
def test_save_go_on_save_restore(tmp_path: Path, small_chunks: None, stack: Any, kind: str | None):
    store, world = fresh(stack, kind=kind)
    store.mirror(tmp_path)
    known: dict[str, float] = {}
    for turns in (3, 10, 1, 40, 30, 7):  # 101 moments: the ring wraps
        run(store, world, turns)
        about = json.loads(json.dumps(store.save(tmp_path)))
        for name, when in known.items():
            assert stored(tmp_path)[name] == when, "a file is never written twice"
        known = stored(tmp_path)
        twin, _ = fresh(stack, kind=kind)
        twin.restore(tmp_path, about)
        equal_samples(store, twin)
        steps = twin.head - twin.filled, twin.head + 1
        pieces = [*about["chunks"], about["tail"]]
        assert pieces[0]["start"] <= steps[0] and pieces[-1]["stop"] == steps[1]
        assert all(a["stop"] == b["start"] for a, b in itertools.pairwise(pieces))
    assert len(about["chunks"]) > 5

    last = store.sample(jax.random.key(9))  # both live on alike, the restored one in its turn saved
    for turn in range(60):
        unroll = world.unroll(4)
        store.add(unroll)
        twin.add(unroll)
        for one in (store, twin):
            one.feedback(one.sample(jax.random.key(turn))[1], np.full(one.batch, 0.1 * turn, np.float32))
        if turn in (0, 1, 5, 59):
            equal_samples(store, twin)
    with pytest.raises(AssertionError):
        same(store.sample(jax.random.key(9)), last)
    third, _ = fresh(stack, kind=kind)
    third.restore(tmp_path, twin.save(tmp_path))
    equal_samples(store, third)


def test_a_second_save_writes_only_what_is_new(tmp_path: Path, small_chunks: None):
    store, world = fresh()
    run(store, world, 42)
    assert store.head > store.moments and (store.head - store.filled) % store._chunk, "part of a chunk is overwritten"
    first = store.save(tmp_path)
    equal_samples_after(store, tmp_path, first)
    run(store, world, 1)
    store._mirror.wait()
    before = stored(tmp_path)
    second = store.save(tmp_path)
    new = {name for name, when in stored(tmp_path).items() if when != before.get(name)}
    assert new <= {second["chunks"][-1]["file"], second["tail"]["file"]} and len(first["chunks"]) > 5
    assert sum((tmp_path / name).stat().st_size for name in new) < 3 * host.CHUNK


@pytest.mark.parametrize("kind", [None, "proportional"])
def test_old_files_go_once_no_checkpoint_names_them(tmp_path: Path, small_chunks: None, kind: str | None):
    store, world = fresh(kind=kind)
    (tmp_path / "policy.safetensors").write_bytes(b"not a replay's")
    (tmp_path / f".{0:012d}-{'0' * 32}.safetensors.half").write_bytes(b"of a killed run")
    abouts = []
    for _ in range(4):
        run(store, world, 20)
        abouts.append(store.save(tmp_path))
    run(store, world, 20)  # some chunks wait for the next checkpoint
    store.prune(tmp_path, abouts[1:3])
    named = {piece["file"] for about in abouts[1:3] for piece in (*about["chunks"], about["tail"])}
    own = {piece["file"] for piece in abouts[3]["chunks"]}
    left = {path.name for path in tmp_path.iterdir()}
    assert named | own | {"policy.safetensors"} <= left and not any(name.startswith(".") for name in left)
    gone = {piece["file"] for piece in (*abouts[0]["chunks"], abouts[0]["tail"], abouts[3]["tail"])} - named - own
    gone |= {abouts[i]["chances"]["file"] for i in (0, 3)} if kind else set()
    assert gone and not gone & left
    equal_samples_after(store, tmp_path, store.save(tmp_path), kind)
    for about in abouts[1:3]:
        fresh(kind=kind)[0].restore(tmp_path, about)


def test_an_earlier_checkpoint_stands_whatever_came_after(tmp_path: Path, small_chunks: None):
    """A run goes on, is lost, and another one goes on from the checkpoint, into the same folder."""
    store, world = fresh()
    store.mirror(tmp_path)
    run(store, world, 30)
    about = store.save(tmp_path)
    run(store, world, 20)
    later, ahead = store.save(tmp_path), store
    twin, _ = fresh()
    twin.restore(tmp_path, about)
    run(twin, Camera(2, seed=1), 20)
    equal_samples_after(twin, tmp_path, twin.save(tmp_path))
    equal_samples_after(ahead, tmp_path, later)


@pytest.mark.parametrize(
    ("fault", "message"), [("missing", "No such file"), ("short", "bytes instead of"), ("flipped", "damaged")]
)
@pytest.mark.parametrize("which", ["chunks", "tail"])
def test_names_the_file_that_is_broken(tmp_path: Path, small_chunks: None, fault: str, message: str, which: str):
    store, world = fresh()
    run(store, world, 30)
    about = store.save(tmp_path)
    path = tmp_path / (about["tail"] if which == "tail" else about["chunks"][1])["file"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink() if fault == "missing" else path.write_bytes(content[:-1] if fault == "short" else content)
    twin, other = fresh(seed=5)
    run(twin, other, 20)
    kept = twin.sample(jax.random.key(0))
    with pytest.raises(YozhError, match=f"{path.name}.*{message}"):
        twin.restore(tmp_path, about)
    same(twin.sample(jax.random.key(0)), kept)


def test_refuses_another_kind_of_content(tmp_path: Path):
    store, world = fresh()
    run(store, world, 10)
    about = store.save(tmp_path)
    for other in (fresh(None)[0], fresh(capacity=202)[0], fresh(streams=3)[0], fresh(kind="rank")[0]):
        with pytest.raises(YozhError, match=r"another kind of replay: of [.\w]+.* instead of"):
            other.restore(tmp_path, about)
    with pytest.raises(YozhError, match="format yozh-replay-9"):
        store.restore(tmp_path, about | {"format": "yozh-replay-9"})


def test_a_full_disk_spares_training_and_the_old_checkpoint(tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    store, world = fresh()
    store.mirror(tmp_path)
    run(store, world, 20)
    about = store.save(tmp_path)
    twin, _ = fresh()
    twin.restore(tmp_path, about)
    expected = twin.sample(jax.random.key(0))

    tried = []

    def full(path: Any, content: bytes) -> None:
        tried.append(path)
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "atomic_write", full)
        run(store, world, 10)
        store._mirror.wait()
        assert len(tried) > 0, "written behind training"
        with pytest.raises(OSError, match="No space left"):
            store.save(tmp_path)
    twin, _ = fresh()
    twin.restore(tmp_path, about)
    same(twin.sample(jax.random.key(0)), expected)
    run(store, world, 3)
    equal_samples_after(store, tmp_path, store.save(tmp_path))


def test_no_more_than_two_pieces_wait_for_a_slow_disk(tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    store, world = fresh()
    atomic, held = chunks.atomic_write, []

    def slow(path: Any, content: bytes) -> None:
        held.append(len(store._mirror._flight))
        time.sleep(0.05)
        atomic(path, content)

    monkeypatch.setattr(chunks, "atomic_write", slow)
    store.mirror(tmp_path)
    run(store, world, 100)
    assert held and max(held) <= 2 and len(store._mirror._flight) <= 2
    monkeypatch.setattr(chunks, "atomic_write", atomic)
    equal_samples_after(store, tmp_path, store.save(tmp_path))


KILLED = """
import json, sys
from pathlib import Path
from tests.test_host_replay import fresh, host, run
host.CHUNK = 2000
store, world = fresh()
folder = Path(sys.argv[1])
store.mirror(folder)
run(store, world, 40)
print(json.dumps(store.save(folder)), flush=True)
while True:
    run(store, world, 1)
"""


@pytest.mark.slow
def test_a_killed_run_leaves_its_checkpoint(tmp_path: Path, small_chunks: None):
    script = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        try:
            about = json.loads(process.stdout.readline())
            before = len(list(tmp_path.iterdir()))
            while len(list(tmp_path.iterdir())) < before + 20:
                assert process.poll() is None
                time.sleep(0.01)
        finally:
            process.kill()
    store, world = fresh()
    run(store, world, 40)
    equal_samples_after(store, tmp_path, about)
    twin, _ = fresh()
    twin.restore(tmp_path, about)
    twin.prune(tmp_path, [about])
    assert stored(tmp_path).keys() == {piece["file"] for piece in (*about["chunks"], about["tail"])}


@pytest.mark.slow
def test_a_checkpoint_of_100_000_frames_hardly_stops_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    big = dict(streams=8, capacity=100_000, batch=32, side=84, episode=500)
    store, world = fresh(**big)
    store.mirror(tmp_path)
    run(store, world, 12_500 // 10, 10)

    def save() -> tuple[dict[str, Any], float, int]:
        before = {path.name for path in tmp_path.iterdir()}  # what is under way is waited for, and counted
        began = time.perf_counter()
        about = store.save(tmp_path)
        seconds = time.perf_counter() - began
        return about, seconds, sum((tmp_path / name).stat().st_size for name in stored(tmp_path).keys() - before)

    _, first, _ = save()
    run(store, world, 10, 10)
    about, second, fresh_bytes = save()
    with capsys.disabled():
        total = sum(piece["bytes"] for piece in about["chunks"])
        print(f"\nsave: {first:.2f} s, again after 800 steps {second:.2f} s and {fresh_bytes / 1e6:.0f} of {total / 1e6:.0f} MB")  # fmt: skip
    assert first < 5 and second < 5
    assert fresh_bytes < 3 * host.CHUNK
    twin, _ = fresh(**big)
    twin.restore(tmp_path, about)
    equal_samples(store, twin)
