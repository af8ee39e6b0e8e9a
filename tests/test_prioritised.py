"""Prioritised replay: windows come as often as their priorities say, and the weights undo it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.test_stores import B, unrolls
from yozh import losses
from yozh.core import Spec, TimeStep, Unroll, YozhError
from yozh.networks import MLP, QNetwork
from yozh.spaces import Box, Discrete
from yozh.stores import PrioritisedReplay, Replay
from yozh.stores.prioritised import Priorities
from yozh.stores.ranks import Ranks
from yozh.stores.sums import WIDTH, Sums


def store(batch: int = 64, window: int = 1, capacity: int = 12 * B, alpha: float = 0.7, kind="proportional"):
    return PrioritisedReplay(capacity, batch, window, alpha, kind)


def filled(to: PrioritisedReplay, lengths: list[int], ends: tuple[int, ...] = ()) -> Priorities:
    """After consecutive unrolls; in stream 0 the moments `ends` close an episode."""
    stream = unrolls(lengths)
    state, add = to.init(stream[0]), eqx.filter_jit(to.add)
    for u in stream:
        time = u.step.obs[..., 0]
        last = jnp.isin(time, jnp.asarray(ends, jnp.float32)) & (jnp.arange(B)[None] == 0)
        state = add(state, Unroll(TimeStep(u.step.obs, u.step.reward, u.step.discount, u.step.first, last), *tail(u)))
    return state


def tail(u: Unroll) -> tuple:
    return u.action, u.extras, u.memory, u.version, u.weight


def given(
    to: PrioritisedReplay, state: Priorities, seed: int = 0, *, apart: bool = False
) -> tuple[Priorities, np.ndarray]:
    """With random priorities for all windows there are, and those priorities by place; if asked for, so far apart that none
    shares its rank."""
    places, rng = np.flatnonzero(np.asarray(state.masses.levels[0])), np.random.default_rng(seed)
    priority = 1.05 ** rng.permutation(len(places)) if apart else rng.gamma(1.0, size=len(places)) + 0.01
    priority = priority.astype(np.float32)
    state = eqx.filter_jit(to.feedback)(state, jnp.asarray(places, jnp.int32), jnp.asarray(priority))
    known = np.zeros(len(state.masses.levels[0]))
    known[places] = priority
    return state, known


def drawn(to: PrioritisedReplay, state: Priorities, times: int = 3000) -> tuple[Unroll, np.ndarray]:
    """Many samples one after the other, `[n+1, times * batch, ...]`."""
    batches, places = eqx.filter_jit(eqx.filter_vmap(to.sample, in_axes=(None, 0)))(
        state, jax.random.split(jax.random.key(1), times)
    )
    flat = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:]), (batches.step, batches.action))  # fmt: skip
    return Unroll(*flat, {}, (), batches.version.ravel(), batches.weight.ravel()), np.asarray(places).ravel()


def fits(places: np.ndarray, share: np.ndarray) -> float:
    """The chi-square test's p of these draws under these shares; whatever has none must not come."""
    counts = np.bincount(places, minlength=len(share))
    assert (counts[share == 0] == 0).all()
    share = share.astype(np.float64)
    there = share > 0
    return stats.chisquare(counts[there], share[there] / share.sum() * len(places)).pvalue


@pytest.mark.parametrize("n", [1, WIDTH, WIDTH + 1, 1000, 5000])
def test_sums_find_numbers_as_often_as_they_are_large(n: int):
    numbers = np.random.default_rng(n).random(n).astype(np.float32) ** 3
    numbers[::3] = 0.0
    numbers[-1] = 1.0
    sums = Sums.zeros(n)
    for part in np.array_split(np.arange(n), 7):
        sums = sums.put(jnp.asarray(part, jnp.int32), jnp.asarray(numbers[part]))
    padded = jnp.pad(jnp.asarray(numbers), (0, len(sums.levels[0]) - n))
    for one, two in zip(sums.levels, Sums.of(padded).levels, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)
    places = sums.find((jnp.arange(200_000, dtype=jnp.float32) + 0.5) / 200_000, jnp.zeros(200_000))
    counts = np.bincount(places, minlength=n) / 200_000
    np.testing.assert_allclose(counts, numbers / numbers.sum(), atol=2e-5)
    assert (np.diff(places) >= 0).all() and (counts[numbers == 0] == 0).all()
    assert int(sums.find(jnp.ones(1), jnp.ones(1))[0]) == n - 1, "a share that rounding made 1 is the last number"


def test_every_one_of_a_million_can_be_found():
    """Every second number is a hundredth: less than a share of 24 bits can tell. Without further digits these come 1.8 times as often as
    they should, and always the same."""
    n, times = 2**20, 2**20
    sums = Sums.of(jnp.where(jnp.arange(n) % 2 == 1, 0.01, 1.0))
    keys = jax.random.split(jax.random.key(0), 2)
    places = np.asarray(sums.find(*(jax.random.uniform(k, (times,)) for k in keys)))
    small, expected = places[places % 2 == 1], times * 0.01 / 1.01
    assert abs(len(small) / expected - 1) < 0.06
    per_place = expected / (n / 2)
    assert len(np.unique(small)) > 0.95 * (n / 2) * (1 - np.exp(-per_place))


@pytest.mark.parametrize("kind", ["proportional", "rank"])
def test_frequencies(kind: str):
    to = store(kind=kind)
    state, priority = given(to, filled(to, [5] * 3), apart=True)
    rank = stats.rankdata(-priority[priority > 0])
    mass = priority**0.7
    if kind == "rank":
        mass[priority > 0] = rank**-0.7
    _, places = drawn(to, state, 1_000_000 // to.batch)
    assert fits(places, mass) > 0.01
    # a draw from each of equal parts of the mass varies less than independent draws
    top, share = mass.argmax(), mass.max() / mass.sum()
    counts = (places.reshape(-1, 64) == top).sum(1)
    assert counts.var() < 0.9 * 64 * share * (1 - share)


def test_weights_make_the_mean_gradient_that_of_uniform_draws():
    """Of the squared errors of a Q-network."""
    to = store(window=2)
    state, priority = given(to, filled(to, [5] * 3))
    batch, places = drawn(to, state)
    windows = np.flatnonzero(priority)
    np.testing.assert_allclose(batch.weight, (priority**0.7).sum() / len(windows) / priority[places] ** 0.7, rtol=1e-4)
    found, once = np.unique(places, return_index=True)
    assert (found == windows).all()
    obs, aim = batch.step.obs[0, once] / 10, jnp.asarray(np.sin(1.7 * windows) + 1, jnp.float32)
    net = QNetwork(MLP((8,)), None, Spec(Box((2,)), Discrete(3)), jax.random.key(0), actions=3, dueling=False)
    slope = jax.vmap(jax.grad(lambda net, x, y: losses.squared(net(x, ())[0][1], y)), (None, 0, 0))(net, obs, aim)
    slope = np.concatenate([np.reshape(x, (len(windows), -1)) for x in jax.tree.leaves(slope)], 1)
    uniform = slope.mean(0)

    def off(weight: np.ndarray) -> float:
        share = np.bincount(places, weight, len(priority))[windows] / len(places)
        return float(np.linalg.norm(share @ slope - uniform) / np.linalg.norm(uniform))

    assert off(np.asarray(batch.weight)) < 0.01 and off(np.ones(len(places))) > 0.03


@pytest.mark.parametrize("kind", ["proportional", "rank"])
@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("window", [1, 3])
def test_what_is_there_is_what_replay_has(length: int, window: int, kind: str):
    """Complete windows, all of them, and no more, when the ring is half full, just full and written over."""
    for turns in (4, 12, 17):
        to = store(window=window, kind=kind, batch=500, capacity=12 * B + 1)
        state = filled(to, [length] * turns)
        batch, places = drawn(to, state, 20)
        time, stream = np.asarray(batch.step.obs[..., 0]), np.asarray(batch.step.obs[..., 1])
        assert (np.diff(time, axis=0) == 1).all() and (np.diff(stream, axis=0) == 0).all()
        assert (np.asarray(batch.action)[:-1] == 10 * time[:-1] + stream[:-1]).all()
        newest = length * turns
        starts = range(max(newest - 12, 0), newest - window + 1)
        assert set(zip(time[0], stream[0], strict=True)) == {(t, b) for t in starts for b in range(B)}
        assert np.count_nonzero(state.masses.levels[0]) == len(starts) * B
        np.testing.assert_allclose(batch.weight, 1.0, rtol=1e-5, err_msg="all have the first priority")
        assert fits(places, np.asarray(state.masses.levels[0])) > 0.001


def test_windows_that_begin_at_an_end_are_never_drawn():
    to = store(window=2)
    state = filled(to, [4] * 5, ends=(9, 13, 18))
    batch, _ = drawn(to, state, 200)
    seen = {t for t, b in zip(*np.asarray(batch.step.obs[0]).T, strict=True) if b == 0}
    assert seen == set(range(8, 19)) - {9, 13, 18}
    assert np.count_nonzero(state.masses.levels[0]) == 3 * 11 - 3
    np.testing.assert_allclose(batch.weight, (3 * 11 - 3) / (3 * 11), rtol=1e-5, err_msg="dead windows count as 0")
    batch, _ = drawn(to, eqx.filter_jit(to.sever)(state), 200)
    at, ended = np.asarray(batch.step.obs[0, :, 0]), np.asarray(batch.step.last[1])
    assert at.max() == 19 and ended[at == 19].all(), "the cut closes the newest step, and its window is complete"


def test_severing_an_empty_store_changes_nothing():
    to = store()
    state = to.sever(to.init(unrolls([2])[0]))
    assert not bool(to.ready(state)) and float(state.masses.total()) == 0.0
    assert bool(to.ready(filled(to, [1])))


def test_new_windows_have_the_largest_priority_so_far():
    to = store(alpha=1.0)
    state = filled(to, [5])
    state = to.feedback(state, jnp.array([0, 4], jnp.int32), jnp.array([8.0, 0.25]))
    assert float(state.masses.levels[0][0]) == 8.0 and float(state.masses.levels[0][4]) == 0.25
    state = to.feedback(state, jnp.array([0], jnp.int32), jnp.array([0.5]))
    assert float(state.masses.levels[0][0]) == 0.5, "a priority that fell"
    assert float(state.largest) == 8.0, "the largest so far stays"
    *_, newer = unrolls([5, 2])
    state = to.add(state, newer)
    np.testing.assert_array_equal(state.masses.levels[0][5 * B : 7 * B], 8.0)
    for _ in range(4):
        state = to.add(state, newer)
    np.testing.assert_array_equal(state.masses.levels[0][:B], 8.0, "the first moment was written over")


def test_one_window_twice_in_a_batch_takes_its_larger_priority():
    for kind in ("proportional", "rank"):
        to = store(alpha=1.0, kind=kind)
        state = to.feedback(filled(to, [5]), jnp.array([3, 7, 3], jnp.int32), jnp.array([9.0, 0.5, 2.0]))
        if kind == "proportional":
            assert float(state.masses.levels[0][3]) == 9.0
        else:
            assert float(state.ranks.numbers[3]) == 9.0 and int(state.ranks.counts.sum()) == 5 * B


def test_ranks_are_exact_and_ties_share_their_mean():
    numbers = (1.1 ** np.random.default_rng(0).permutation(300)).astype(np.float32) * 1e-6
    ranks = Ranks.empty(400)
    everyone = jnp.ones(300, bool)
    places = jnp.asarray(np.random.default_rng(1).permutation(400)[:300], jnp.int32)
    for x in (numbers[::-1].copy(), numbers):
        ranks = ranks.put(places, jnp.asarray(x), everyone)
    np.testing.assert_array_equal(ranks.of(jnp.asarray(numbers)), stats.rankdata(-numbers))
    ranks = ranks.put(places[:200], jnp.zeros(200), everyone[:200])
    np.testing.assert_array_equal(ranks.of(jnp.asarray(numbers[200:])), stats.rankdata(-numbers[200:]))
    ranks = ranks.put(places[:2], jnp.full(2, 1e9), everyone[:2])
    np.testing.assert_array_equal(ranks.of(jnp.asarray([1e9, numbers[200:].max()], jnp.float32)), [1.5, 3.0])


def test_stale_ranks_are_looked_up_anew():
    to = store(kind="rank", alpha=1.0)
    state, priority = given(to, filled(to, [12]))
    for seed in range(1, 6):
        places = jnp.asarray(np.random.default_rng(seed).choice(36, 9, replace=False), jnp.int32)
        fresh = np.random.default_rng(seed).gamma(1.0, size=9).astype(np.float32) + 0.01
        state = to.feedback(state, places, jnp.asarray(fresh))
        priority[np.asarray(places)] = fresh
    there = priority > 0
    np.testing.assert_allclose(
        1 / np.asarray(state.masses.levels[0])[there],
        state.ranks.of(jnp.asarray(priority[there], jnp.float32)),
        rtol=1e-5,
    )


def test_alpha_0_is_uniform_and_nonsense_is_refused():
    to = store(alpha=0.0)
    state, priority = given(to, filled(to, [12]))
    np.testing.assert_array_equal(np.asarray(state.masses.levels[0])[priority > 0], 1.0)
    with pytest.raises(YozhError, match=r"alpha lies in \[0, 1\], not 1.5"):
        store(alpha=1.5)


def test_it_draws_from_the_same_ring_as_replay():
    plain, to = Replay(12 * B, 8, 2), store(window=2)
    state, other = plain.init(unrolls([3])[0]), filled(to, [3] * 6)
    for u in unrolls([3] * 6):
        state = plain.add(state, u)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other.ring), strict=True))
