"""Stores: what goes in comes out, in order, once complete, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yozh.core import TimeStep, Unroll
from yozh.stores import Latest, Replay

B = 3


def unrolls(lengths: list[int]) -> list[Unroll]:
    """Consecutive unrolls whose observation is the moment's number and whose action is ten times it, plus the stream."""
    out, t = [], 0
    for length in lengths:
        time = jnp.arange(t, t + length + 1, dtype=jnp.float32)[:, None] + jnp.zeros((1, B))
        stream = jnp.zeros_like(time) + jnp.arange(B, dtype=jnp.float32)[None]
        no = jnp.zeros_like(time, bool)
        step = TimeStep(jnp.stack([time, stream], -1), time, jnp.ones_like(time), no, no)
        # The action of the last step is the one that the next unroll replaces.
        action = jnp.where(jnp.arange(length + 1)[:, None] == length, -1.0, 10 * time + stream)
        out.append(Unroll(step, action, {}, (), jnp.zeros(B, jnp.int32), jnp.ones(B)))
        t += length
    return out


def filled(store: Replay, lengths: list[int]):
    state = store.init(unrolls(lengths[:1])[0])
    for u in unrolls(lengths):
        state = jax.jit(store.add)(state, u)
    return state


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("window", [1, 3])
def test_windows_are_consecutive_and_complete(length: int, window: int):
    store = Replay(capacity=12 * B, batch=4000, window=window)
    turns = 17
    state = filled(store, [length] * turns)
    batch, _ = jax.jit(store.sample)(state, jax.random.key(0))
    time, stream = np.asarray(batch.step.obs[..., 0]), np.asarray(batch.step.obs[..., 1])
    assert time.shape == (window + 1, 4000)
    assert (np.diff(time, axis=0) == 1).all() and (np.diff(stream, axis=0) == 0).all()
    assert (np.asarray(batch.action)[:-1] == 10 * time[:-1] + stream[:-1]).all(), (
        "every action but the last is the one taken"
    )
    newest, oldest = length * turns, length * turns - 12
    starts = time[0]
    assert set(starts) == set(range(max(oldest, 0), newest - window + 1)), "all that is kept, and no more"
    counts = np.bincount((starts - starts.min()).astype(int) * B + stream[0].astype(int))
    expected = 4000 / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < len(counts) + 5 * np.sqrt(2 * len(counts)), "uniform"


def test_fills_before_it_is_ready():
    store = Replay(capacity=12 * B, batch=8, window=3)
    assert not store.ready(filled(store, [1, 1]))
    state = filled(store, [1, 1, 1])
    assert store.ready(state)
    batch, _ = store.sample(state, jax.random.key(0))
    assert (np.asarray(batch.step.obs[0, :, 0]) == 0).all()


def test_latest_keeps_one():
    first, second = unrolls([4, 4])
    state = Latest().init(first)
    batch, _ = Latest().sample(Latest().add(state, second), jax.random.key(0))
    assert (batch.action == second.action).all()
