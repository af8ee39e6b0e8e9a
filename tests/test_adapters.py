"""Environments of gymnax, EnvPool and Gymnasium, and pure ones hosted."""

import importlib.util
import subprocess
import sys

import gymnasium
import gymnasium.spaces as gs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tests.test_environments import check_boundaries, play
from yozh import spaces
from yozh.core import HostEnv, YozhError
from yozh.environments import make
from yozh.environments.batched import Vectorised
from yozh.environments.breakout import Breakout
from yozh.environments.classic import CartPole
from yozh.environments.host import AsHost

envpool = pytest.mark.skipif(importlib.util.find_spec("envpool") is None, reason="needs EnvPool")
gymnax = pytest.mark.skipif(importlib.util.find_spec("gymnax") is None, reason="needs gymnax")


def drive(env, actions, seed=0):
    """`(first step, later steps [T, B])` of a hosted environment under given actions `[T, B, ...]`."""
    first, steps = env.reset(seed), []
    for action in actions:
        env.send(jax.tree.map(np.asarray, action))
        steps.append(jax.tree.map(np.copy, env.recv()))
    return first, jax.tree.map(lambda *x: np.stack(x), *steps)


class Counter(gymnasium.Env):
    """Observes the time and its last action; ends at 3 by termination or truncation; legal: 1 + time % 2."""

    def __init__(self, observation=None, action=None, truncates=False, tell=False):
        self.observation_space = observation or gs.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = action or gs.Discrete(3)
        self.truncates, self.tell = truncates, tell

    def _info(self):
        mask = np.array([True, self.t % 2 == 0, self.t % 2 == 1])
        return {"action_mask": mask} if self.tell and self.t != 2 else {}

    def _obs(self, action):
        if isinstance(self.observation_space, gs.Dict):
            return {"t": np.array([self.t], np.int64), "action_mask": np.array([1, self.t % 2, 0], np.int8)}
        return np.array([self.t, action], np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(-1), self._info()

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        over = self.t == 3
        return self._obs(action), 0.5, over and not self.truncates, over and self.truncates, self._info()


@pytest.mark.parametrize("workers", [False, True], ids=["sync", "workers"])
@pytest.mark.parametrize("truncates", [False, True])
def test_gymnasium_boundaries(workers, truncates):
    env = make(lambda: Counter(truncates=truncates), 2, workers=workers)
    assert isinstance(env, HostEnv) and env.spec.observation == spaces.Box((2,))
    actions = np.arange(18).reshape(9, 2) % 3
    one = check_boundaries(*drive(env, actions), truncates)
    env.close()
    assert one.obs.dtype == one.reward.dtype == np.float32
    np.testing.assert_array_equal(one.obs[:, 0, 0], [0, 1, 2, 3, 0, 1, 2, 3, 0, 1])
    np.testing.assert_array_equal(one.obs[:, 1, 1], [-1, 1, 0, 2, -1, 0, 2, 1, -1, 2])
    np.testing.assert_array_equal(one.reward[:, 0], [0, 0.5, 0.5, 0.5, 0, 0.5, 0.5, 0.5, 0, 0.5])


def test_gymnasium_same_seed_same_trajectory():
    env, actions = make("CartPole-v1", 3, backend="gymnasium"), np.ones((40, 3), np.int32)
    one, two, other = (drive(env, actions, seed)[1].obs for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other) and not np.array_equal(one[:, 0], one[:, 1])


def test_gymnasium_options_reach_the_environment():
    env = make("Pendulum-v1", 1, backend="gymnasium", g=0.0, max_episode_steps=5)
    one = check_boundaries(*drive(env, np.zeros((11, 1, 1), np.float32)), truncates=True)
    np.testing.assert_allclose(one.obs[1:6, 0, 2], one.obs[0, 0, 2], rtol=1e-6)
    with pytest.raises(YozhError, match="options already: g"):
        make(lambda: Counter(), 1, g=1)


def test_gymnasium_masks():
    told = drive(make(lambda: Counter(tell=True), 2), np.zeros((3, 2), np.int32))
    assert make(lambda: Counter(tell=True), 2).spec.legal
    np.testing.assert_array_equal(told[0].extras["legal"], [[True, True, False]] * 2)
    np.testing.assert_array_equal(told[1].extras["legal"][:, 0], [[True, False, True], [True] * 3, [True, False, True]])
    space = gs.Dict(t=gs.Box(0, 9, (1,), np.int64), action_mask=gs.MultiBinary(3))
    env = make(lambda: Counter(space), 2)
    assert env.spec.legal and env.spec.observation == spaces.Dict.of({"t": spaces.Box((1,), 0.0, 9.0, "int32")})
    first, steps = drive(env, np.zeros((2, 2), np.int32))
    np.testing.assert_array_equal(steps.extras["legal"][:, 1], [[True, True, False], [True, False, False]])
    assert set(steps.obs) == {"t"} and steps.obs["t"].dtype == np.int32 and first.extras["legal"].dtype == bool


@pytest.mark.parametrize("space, action, arrives", [
    (gs.Discrete(3, start=5), [2, 0], [7, 5]),
    (gs.MultiDiscrete([3, 3], start=[-1, 1]), [[0, 0], [2, 1]], [[-1, 1], [1, 2]]),
    (gs.Box(-2, 2, (2,), np.float64), [[0.5, 1.0], [-2.0, 0.25]], [[0.5, 1.0], [-2.0, 0.25]]),
], ids=["Discrete", "MultiDiscrete", "Box"])  # fmt: skip
def test_gymnasium_actions_arrive(space, action, arrives):
    class Echo(Counter):
        def _obs(self, action):
            return np.broadcast_to(np.asarray(action, np.float64), (2,)).copy()

    env = make(lambda: Echo(action=space), 2)
    _, steps = drive(env, [np.asarray(action)])
    np.testing.assert_allclose(steps.obs[0], np.broadcast_to(np.asarray(arrives, float).reshape(2, -1), (2, 2)))


def test_gymnasium_vector_environments():
    vector = SyncVectorEnv([Counter] * 2)
    assert make(vector, 2).spec.action == spaces.Discrete(3)
    with pytest.raises(YozhError, match="2 streams, and 3"):
        make(vector, 3)
    with pytest.raises(YozhError, match="NEXT_STEP"):
        make(SyncVectorEnv([Counter] * 2, autoreset_mode=AutoresetMode.SAME_STEP), 2)
    with pytest.raises(YozhError, match="give a function"):
        make(Counter(), 2)


def test_gymnasium_refuses_spaces():
    with pytest.raises(YozhError, match=r"<lambda>: space Text.*Box, Discrete"):
        make(lambda: Counter(gs.Text(4)), 1)


def test_a_pure_environment_hosted_is_the_same():
    env, actions = Vectorised(CartPole(limit=20), 3), jnp.asarray(np.random.default_rng(0).integers(2, size=(90, 3)))
    first, steps = drive(AsHost(env), actions, 4)
    check_boundaries(first, steps, False) if (steps.discount == 0).all() else None
    expected = play(env, actions, 4)
    np.testing.assert_array_equal(first.obs, expected[0].obs)
    np.testing.assert_array_equal(steps.first, expected[1].first)
    np.testing.assert_allclose(steps.obs, expected[1].obs, rtol=1e-4, atol=1e-5)
    keyed = AsHost(env, jax.random.key(4))
    np.testing.assert_array_equal(keyed.reset(9).obs, first.obs)
    assert isinstance(make("Catch", 2, hosted=True), AsHost) and isinstance(first.obs, np.ndarray)


@gymnax
def test_gymnax_is_gymnax(lenient):
    """The same observations and rewards under the same keys."""
    import gymnax

    theirs, params = gymnax.make("SpaceInvaders-MinAtar")
    env = make("SpaceInvaders-MinAtar", 1).env
    assert env.spec.observation.dtype == "bool"
    state, step = env.reset(jax.random.key(1))
    obs, other = theirs.reset_env(jax.random.key(1), params)
    np.testing.assert_array_equal(step.obs, obs)
    one, two = jax.jit(lambda s, a, k: env.step(s, a, k)), jax.jit(theirs.step_env)
    total = 0.0
    for t in range(400):
        key = jax.random.key(t)
        action = jax.random.randint(key, (), 0, env.spec.action.n)
        state, step = one(state, action, key)
        obs, other, reward, done, _ = two(key, other, action, params)
        np.testing.assert_array_equal(step.obs, obs)
        assert float(step.reward) == float(reward) and bool(step.last) == bool(done) == bool(step.discount == 0)
        total += float(reward)
        if done:
            break
    assert done and total > 0, (t, total)


@gymnax
def test_breakout_is_gymnaxs(lenient):
    """From either reset, with the whole wall, with one brick left and with some, by players who follow the ball more or less well."""
    import gymnax

    theirs, params = gymnax.make("Breakout-MinAtar")
    env = Breakout()

    def play(key, kind, care):
        state, first = env.reset(key)
        obs, other = theirs.reset_env(key, params)
        column = state.ball[1]
        side = jnp.where(column == 0, 2, 3)
        other = other.replace(ball_x=column, last_x=column, ball_dir=side)
        obs = theirs.get_obs(other)
        rows = (jnp.arange(10) > 0)[:, None] & (jnp.arange(10) < 4)[:, None]
        some = jax.random.bernoulli(key, 0.6, (10, 10)) & rows
        bricks = jnp.stack([state.bricks, jnp.zeros((10, 10), bool).at[2, 5].set(True), some])[kind]
        state = state._replace(bricks=bricks)
        other = other.replace(brick_map=bricks.astype(jnp.float32))

        def turn(carry, key):
            state, other, going = carry
            side = jnp.sign(other.ball_x - other.pos)
            follow = jnp.where(side < 0, 1, jnp.where(side > 0, 2, 0))
            action = jnp.where(jax.random.uniform(key) < care, follow, jax.random.randint(key, (), 0, 3))
            state, step = env.step(state, action, key)
            obs, other, reward, done, _ = theirs.step_env(key, other, action, params)
            same = (step.obs == (obs > 0)).all() & (step.reward == reward) & (step.last == done)
            return (state, other, going & ~step.last), (
                same | ~going,
                going & step.last,
                reward * going,
                going & state.bricks.all(1)[1:4].all(),
            )

        _, found = jax.lax.scan(turn, (state, other, True), jax.random.split(key, 1000))
        return (first.obs == (obs > 0)).all(), *found

    keys = jax.random.split(jax.random.key(0), 48)
    care = jnp.tile(jnp.array([0.0, 0.8, 1.0]), 16)
    opened, same, ended, reward, whole = jax.jit(jax.vmap(play))(keys, jnp.arange(48) // 16, care)
    assert opened.all() and same.all()
    assert ended.any(1).sum() > 20 and reward.sum(1).max() > 3
    assert (whole[16:32].any(1) & ~whole[16:32, 0]).any(), "the wall is built anew"


@gymnax
@pytest.mark.parametrize("name, limit, truncates", [
    ("Asterix-MinAtar", 4, True), ("DeepSea-bsuite", 1000, False), ("MountainCar-v0", 12, True),
])  # fmt: skip
def test_gymnax_boundaries(name, limit, truncates):
    env = make(name, 2, backend="jax", max_steps_in_episode=limit)
    one = check_boundaries(*play(env, jnp.zeros((30, 2), jnp.int32)), truncates)
    if truncates:
        assert one.last[limit].all()


@gymnax
def test_gymnax_imports_one_module():
    code = ("import sys; from yozh.environments import make; make('Asterix-MinAtar', 2).spec; "
            "print('matplotlib.pyplot' in sys.modules, 'gymnax' in sys.modules); "
            "import gymnax; print(gymnax.make('Asterix-MinAtar')[0].name)")  # fmt: skip
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out == ["False", "False", "Asterix-MinAtar"]


@envpool
def test_envpool_words():
    """64-bit numbers as pairs of words, against NumPy's casts."""
    from yozh.environments import foreign

    rng = np.random.default_rng(0)
    x = rng.normal(size=5000) * 10.0 ** rng.integers(-36, 37, 5000)
    ties = (1 + np.arange(-8, 9) * 2.0**-24) * 3.0
    x = np.concatenate([x, ties, [0.0, -0.0, np.inf, -np.inf, 1e300, -1e300, 1e-300, np.finfo(np.float32).max]])
    with np.errstate(over="ignore", under="ignore"):
        expected = x.astype(np.float32)
    expected[np.abs(expected) < np.finfo(np.float32).tiny] *= 0  # subnormal results become 0
    words = jnp.asarray(x.view(np.uint32).reshape(-1, 2))
    np.testing.assert_array_equal(foreign.narrow(words, "float64").view(jnp.uint32), expected.view(np.uint32))
    assert np.isnan(foreign.narrow(jnp.asarray(np.array([np.nan]).view(np.uint32).reshape(1, 2)), "float64"))[0]
    finite = expected[np.isfinite(expected)]
    np.testing.assert_array_equal(
        np.asarray(foreign.widen(jnp.asarray(finite), "float64")).view(np.float64)[:, 0], finite
    )
    n = np.array([0, 5, -5, 2**31 - 1, -(2**31)])
    np.testing.assert_array_equal(np.asarray(foreign.widen(jnp.asarray(n, jnp.int32), "int64")).view(np.int64)[:, 0], n)
    np.testing.assert_array_equal(foreign.narrow(jnp.asarray(n.view(np.uint32).reshape(-1, 2)), "int64"), n)


@envpool
@pytest.mark.parametrize("name, action, truncates, options", [
    ("CartPole-v1", 1, False, {}),
    ("Pendulum-v1", [0.5], True, {"max_episode_steps": 6}),
    ("MiniGrid-Empty-5x5-v0", 0, True, {"max_episode_steps": 6}),
    ("HalfCheetah-v5", [0.1] * 6, True, {"max_episode_steps": 6}),
])  # fmt: skip
def test_envpool_inside_and_hosted(name, action, truncates, options):
    """The same pool in the program, hosted, and by EnvPool's own hand."""
    import envpool

    n, t = 3, 20
    inside = make(name, n, backend="envpool", **options)
    hosted = make(name, n, backend="envpool", hosted=True, **options)
    assert not inside.pure and inside.spec == hosted.spec and inside.backend == hosted.backend == "envpool"
    actions = jnp.broadcast_to(jnp.asarray(action), (t, n, *np.shape(action)))
    seed = int(jax.random.bits(jax.random.key(5))) >> 1
    one = check_boundaries(*play(inside, actions, 5), truncates)
    two = check_boundaries(*drive(hosted, actions, seed), truncates)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    jax.tree.map(lambda x, zero: _same(x, zero, (t + 1, n)), one.obs, spaces.zeros(inside.spec.observation))
    pool = envpool.make(name, "gymnasium", num_envs=n, seed=seed, **options)
    pool.reset()
    for i in range(t):
        obs, reward, terminated, truncated, _ = pool.step(np.asarray(actions[i]))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x[i + 1], y, rtol=1e-6), one.obs, obs)  # noqa: B023
        np.testing.assert_array_equal(one.reward[i + 1], reward)
        np.testing.assert_array_equal(one.discount[i + 1] == 0, terminated)
        np.testing.assert_array_equal(one.last[i + 1], terminated | truncated)


def _same(x, zero, lead):
    assert (x.shape, x.dtype) == ((*lead, *zero.shape), zero.dtype)


@envpool
def test_envpool_actions_matter():
    inside = make("CartPole-v1", 2, backend="envpool")
    left, right = (play(inside, jnp.full((5, 2), a), 0)[1].obs[..., 1] for a in (0, 1))
    assert (left[-1] < -0.5).all() and (right[-1] > 0.5).all()


@envpool
def test_envpool_programs_serve_every_pool():
    """One program for all pools of a kind: it holds neither an address nor the object."""
    traces = []

    def run(env, state, actions):
        traces.append(env.id)
        return jax.lax.scan(lambda s, a: env.step(s, a), state, actions)

    jitted = jax.jit(run)
    actions = jnp.ones((5, 2), jnp.int32)
    one, two = (make("CartPole-v1", 2, backend="envpool") for _ in range(2))
    (s1, _), (s2, _) = (env.reset(jax.random.key(0)) for env in (one, two))
    a, b = jitted(one, s1, actions)[1], jitted(two, s2, actions)[1]
    np.testing.assert_array_equal(a.obs, b.obs)
    assert traces == ["CartPole-v1"] and one == two and hash(one) == hash(two)
    texts = [jax.jit(run).lower(e, s, actions).as_text() for e, s in ((one, s1), (two, s2))]
    assert texts[0] == texts[1] and "handle" not in texts[0]


@envpool
def test_envpool_refuses_unknown_options():
    with pytest.raises(YozhError, match=r"EnvPool cannot make CartPole-v1.*nonsense"):
        _ = make("CartPole-v1", 2, backend="envpool", nonsense=1).spec
    assert make("CartPole-v1", 2, backend="envpool", num_threads=2).reset(jax.random.key(0))[1].first.all()


@envpool
def test_envpool_ended_pools_are_refused():
    env = make("CartPole-v1", 2, backend="envpool")
    old, _ = env.reset(jax.random.key(0))
    new, _ = env.reset(jax.random.key(1))
    step = jax.jit(lambda env, state: env.step(state, jnp.ones(2, jnp.int32)))
    jax.block_until_ready(step(env, new))
    with pytest.raises(jax.errors.JaxRuntimeError, match="handle"):
        jax.block_until_ready(step(env, old))
    env.close()
    with pytest.raises(jax.errors.JaxRuntimeError, match="handle"):
        jax.block_until_ready(step(env, new))


@envpool
def test_envpool_programs_are_cached_on_disk(tmp_path):
    """A second process finds the program of the first and runs it on its own pool."""
    code = """
import sys, jax, jax.numpy as jnp
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if "cache_hit" in name else None)
from yozh.environments import make
padding = [bytearray(1 << 12) for _ in range(int(sys.argv[2]))]
env = make("CartPole-v1", 2, backend="envpool")
state, _ = env.reset(jax.random.key(0))
run = jax.jit(lambda env, s: jax.lax.scan(lambda s, _: env.step(s, jnp.ones(2, jnp.int32)), s, length=9)[1].obs.sum())
hits.clear()
total = run(env, state)
print(float(total), len(hits))
"""
    out = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), str(i)], capture_output=True, text=True, check=True
        ).stdout.split()
        for i in range(2)
    ]
    assert out[0][0] == out[1][0]
    assert (out[0][1], out[1][1]) == ("0", "1")


@envpool
def test_truncation_is_told_apart_everywhere():
    """The pole that nobody can drop in 4 steps: every backend truncates, none terminates."""
    actions = jnp.asarray([[0], [1], [0], [1], [0], [1], [0]], jnp.int32)
    for backend, options in [
        ("jax", {"limit": 4}),
        ("envpool", {"max_episode_steps": 4}),
        ("gymnasium", {"max_episode_steps": 4}),
    ]:
        env = make("CartPole-v1", 1, backend=backend, **options)
        _, steps = play(env, actions) if backend != "gymnasium" else drive(env, actions)
        np.testing.assert_array_equal(np.asarray(steps.last)[:, 0], [False, False, False, True, False, False, False])
        np.testing.assert_array_equal(np.asarray(steps.discount), np.ones((7, 1)))
        np.testing.assert_array_equal(np.asarray(steps.reward)[:, 0], [1, 1, 1, 1, 0, 1, 1])
