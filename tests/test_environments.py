"""Pure environments, their vectorised form, spaces and names."""

import subprocess
import sys

import gymnasium
import gymnasium.spaces as gs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yozh import spaces
from yozh.core import TimeStep, YozhError
from yozh.environments import make, names, probes, registry
from yozh.environments.bank import Bank
from yozh.environments.batched import Vectorised
from yozh.environments.catch import Board, Catch
from yozh.environments.classic import CartPole, Pendulum, Physics


def play(env, actions, key=0):
    """`(first step, later steps [T, B])` under given actions `[T, B, ...]`, in one program."""
    state, first = env.reset(jax.random.key(key))
    _, steps = jax.jit(lambda state: jax.lax.scan(lambda s, a: env.step(s, a), state, actions))(state)
    return first, steps


def check_boundaries(first: TimeStep, steps: TimeStep, truncates: bool):
    """The pattern that next-step auto-reset leaves, whatever the backend; `[T, B]`."""
    one = jax.tree.map(lambda a, b: np.concatenate([np.asarray(a)[None], np.asarray(b)]), first, steps)
    assert one.first[0].all() and not one.last[0].any() and (one.reward[0] == 0).all() and (one.discount[0] == 1).all()
    assert one.last.any(), "no episode ended: nothing was tested"
    np.testing.assert_array_equal(one.first[1:], one.last[:-1])
    assert not (one.first & one.last).any()
    assert (one.reward[one.first] == 0).all() and (one.discount[one.first] == 1).all()
    assert (one.discount[~one.last] == 1).all()
    assert (one.discount[one.last] == (1 if truncates else 0)).all()
    return one


def gym_equal(ours, theirs, write, sample, steps):
    """Each of our steps, from their state, against theirs; `steps` in all, over as many episodes as that makes."""
    step = jax.jit(lambda state, action: ours.step(state, action, jax.random.key(0)))
    rng, episodes, terminated_seen = np.random.default_rng(0), 0, 0
    theirs.reset(seed=0)
    t = 0
    for _ in range(steps):
        before = np.asarray(theirs.unwrapped.state, np.float32)
        action = sample(rng)
        obs, reward, terminated, truncated, _ = theirs.step(action)
        _, mine = step(write(before, t), jnp.asarray(action))
        t += 1
        np.testing.assert_allclose(mine.obs, obs, rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(mine.reward, reward, rtol=2e-5, atol=2e-5)
        assert (bool(mine.discount == 0), bool(mine.last)) == (terminated, terminated or truncated)
        assert not mine.first
        if terminated or truncated:
            theirs.reset()
            t, episodes, terminated_seen = 0, episodes + 1, terminated_seen + terminated
    return episodes, terminated_seen


def test_cartpole_is_gymnasiums():
    write = lambda x, t: Physics(jnp.asarray(x), jnp.int32(t))  # noqa: E731
    theirs = gymnasium.make("CartPole-v1")
    assert CartPole().spec.observation.dtype == "float32"
    np.testing.assert_allclose(CartPole().spec.observation.bounds()[1], theirs.observation_space.high, rtol=1e-6)
    episodes, ended = gym_equal(CartPole(), theirs, write, lambda rng: int(rng.integers(2)), 700)
    assert episodes >= 20 and ended == episodes


def test_cartpole_is_truncated_at_500():
    """A balanced pole: push against the way it leans."""
    theirs, ours = gymnasium.make("CartPole-v1"), CartPole()
    obs, _ = theirs.reset(seed=1)
    state, step = Physics(jnp.asarray(obs), jnp.int32(0)), jax.jit(lambda s, a: ours.step(s, a, jax.random.key(0)))
    for t in range(1, 501):
        action = int(obs[2] + 0.3 * obs[3] + 0.05 * obs[1] + 0.02 * obs[0] > 0)
        obs, _, terminated, truncated, _ = theirs.step(action)
        state, mine = step(state, jnp.int32(action))
        assert bool(mine.last) == (t == 500) == truncated and not terminated and mine.discount == 1
        state = Physics(jnp.asarray(obs), state.t)


def test_pendulum_is_gymnasiums():
    write = lambda x, t: Physics(jnp.asarray(x), jnp.int32(t))  # noqa: E731
    sample = lambda rng: rng.uniform(-3, 3, 1).astype(np.float32)  # noqa: E731
    episodes, ended = gym_equal(Pendulum(), gymnasium.make("Pendulum-v1"), write, sample, 410)
    assert (episodes, ended) == (2, 0)


@pytest.mark.parametrize(
    "env, name", [(CartPole(), "CartPole-v1"), (Pendulum(), "Pendulum-v1")], ids=["CartPole", "Pendulum"]
)
def test_starts_are_gymnasiums(env, name):
    ours = np.asarray(jax.vmap(lambda k: env.reset(k)[0].x)(jax.random.split(jax.random.key(0), 4000)))
    theirs = gymnasium.make(name)
    theirs = np.stack([(theirs.reset(seed=i), theirs.unwrapped.state)[1] for i in range(500)])
    for q in (0, 0.25, 0.5, 0.75, 1):
        gap = np.quantile(ours, q, 0) - np.quantile(theirs, q, 0)
        assert (np.abs(gap) < 0.3 * theirs.std(0)).all(), "four standard errors of a quantile of 500"


def test_catch_by_hand():
    env = Catch()
    state, step = env.reset(jax.random.key(3))
    assert (int(state.paddle), int(state.ball_y)) == (2, 0)
    np.testing.assert_array_equal(np.argwhere(step.obs), [[0, int(state.ball_x)], [9, 2]])
    for target, reward in [(0, 1.0), (1, -1.0)]:
        state = Board(jnp.int32(0), jnp.int32(0), jnp.int32(2))
        for t in range(9):
            action = 1 + np.sign(target - int(state.paddle))
            state, step = env.step(state, jnp.int32(action), jax.random.key(0))
            assert bool(step.last) == (t == 8) and bool(step.discount == 0) == (t == 8)
            assert float(step.reward) == (reward if t == 8 else 0)
        np.testing.assert_array_equal(np.argwhere(step.obs), [[9, 0]] if target == 0 else [[9, 0], [9, 1]])
    at_wall = Board(jnp.int32(0), jnp.int32(0), jnp.int32(4))
    assert int(env.step(at_wall, jnp.int32(2), jax.random.key(0))[0].paddle) == 4


def random_actions(space, key, lead):
    def draw(s):
        match s:
            case spaces.Discrete(n):
                return jax.random.randint(key, lead, 0, n)
            case spaces.MultiDiscrete(ns):
                return jax.random.randint(key, (*lead, len(ns)), 0, jnp.asarray(ns))
            case spaces.MultiBinary(n):
                return jax.random.bernoulli(key, shape=(*lead, n)).astype(jnp.int8)
            case _:
                low, high = s.bounds()
                return jax.random.uniform(key, (*lead, *s.shape)) * (high - low) + low

    return spaces.map_leaves(draw, space)


PURE = [CartPole(), CartPole(limit=5), Bank(clients=4), Pendulum(limit=7), Catch(), probes.Constant(), probes.Seen(), probes.Chosen(),
        probes.Matched(), probes.Aim(), probes.Several(), probes.Bits(), probes.Mixed(), probes.Pictured(),
        probes.Forbidden(), probes.Later(), probes.Recall(), probes.Endless(), probes.Endless(ends=True)]  # fmt: skip


@pytest.mark.parametrize("env", PURE, ids=lambda e: type(e).__name__)
def test_episode_boundaries_and_spaces(env):
    batched = Vectorised(env, 3)
    with jax.numpy_rank_promotion("allow"):
        actions = random_actions(env.spec.action, jax.random.key(1), (60, 3))
    one = check_boundaries(*play(batched, actions), getattr(env, "limit", 99) < 99 and not getattr(env, "ends", False))
    jax.tree.map(lambda x, zero: _same(x, zero, (61, 3)), one.obs, spaces.zeros(env.spec.observation))
    assert ("legal" in one.extras) == env.spec.legal


def _same(x, zero, lead):
    assert (x.shape, x.dtype) == ((*lead, *zero.shape), zero.dtype)


def test_last_observation_is_the_true_one_and_the_reset_ignores_its_action():
    env = Vectorised(probes.Later(), 2)
    _, steps = play(env, jnp.zeros((7, 2), jnp.int32))
    np.testing.assert_array_equal(steps.obs[:, 0, 0], [1, 2, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(steps.reward[:, 0], [0, 1, 0, 0, 1, 0, 0])
    cartpole = Vectorised(CartPole(limit=3), 2)
    push = jnp.array([1, 0, 1, 0, 0, 1], jnp.int32)[:, None].repeat(2, 1)
    other = push.at[3].set(1)
    same, differs = play(cartpole, push)[1], play(cartpole, push.at[2].set(0))[1]
    np.testing.assert_array_equal(play(cartpole, other)[1].obs, same.obs)
    assert not np.allclose(differs.obs[2], same.obs[2])


def test_streams_reset_apart_and_differ():
    """Only the stream that ended starts anew, with numbers of its own."""
    env = Vectorised(CartPole(), 4)
    actions = jnp.asarray(np.random.default_rng(0).integers(2, size=(200, 4)), jnp.int32)
    first, steps = play(env, actions)
    assert steps.first.any() and not steps.first.all(1).any()
    assert np.abs(np.asarray(steps.obs)[np.asarray(steps.first)]).max() <= 0.05
    going = ~np.asarray(steps.first[1:]) & ~np.asarray(steps.first[:-1])
    moved = np.abs(np.diff(np.asarray(steps.obs[..., 0]), axis=0))
    assert (moved[going] < 0.1).all()
    starts = np.concatenate([first.obs, steps.obs[np.asarray(steps.first)]])
    assert len(np.unique(starts, axis=0)) == len(starts)


def test_same_seed_same_trajectory():
    env = Vectorised(Catch(), 3)
    actions = jnp.ones((40, 3), jnp.int32)
    one, two, other = (play(env, actions, k)[1] for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert not np.array_equal(one.obs, other.obs)


def test_seeds_and_parameters_under_vmap():
    env = Vectorised(Pendulum(limit=5), 2)
    actions = jnp.zeros((12, 2, 1))

    def run(gravity, key):
        heavy = Vectorised(Pendulum(gravity=gravity, limit=5), 2)
        state, _ = heavy.reset(key)
        return jax.lax.scan(lambda s, a: heavy.step(s, a), state, actions)[1]

    keys = jax.vmap(jax.random.key)(jnp.array([0, 0, 1]))
    out = jax.jit(jax.vmap(run))(jnp.array([10.0, 3.0, 10.0]), keys)
    # Programs round differently, by less than this; another gravity or seed differs by far more.
    np.testing.assert_allclose(out.obs[0], play(env, actions)[1].obs, atol=1e-5)
    assert np.abs(out.obs[1] - out.obs[0]).max() > 0.1 and np.abs(out.obs[2] - out.obs[0]).max() > 0.1
    varied = Vectorised(jax.vmap(lambda g: Pendulum(gravity=g, limit=5))(jnp.array([10.0, 3.0])), 2, varied=True)
    both = play(varied, actions)[1].obs
    np.testing.assert_allclose(both[:, 0], out.obs[0][:, 0], atol=1e-5)
    np.testing.assert_allclose(both[:, 1], out.obs[1][:, 1], atol=1e-5)


@pytest.mark.parametrize("value, gamma", [(100.0, 0.99), (5.0, 0.8)])
def test_endless_is_worth_what_it_says(value, gamma):
    """Bootstrapped through the truncation; as a termination the mean over the loop would be below 10."""
    _, steps = play(Vectorised(probes.Endless(), 1), jnp.zeros((4000, 1), jnp.int32))
    v = 0.0
    for reward, discount, first in zip(*(np.asarray(x)[::-1, 0] for x in (steps.reward, steps.discount, steps.first)), strict=True):  # fmt: skip
        v = v if first else reward + gamma * discount * v
    assert abs(v - value) < 1e-2


def test_probe_rewards():
    key, a = jax.random.key(0), jnp.int32

    def earned(env, state, action):
        return float(env.step(state, action, key)[1].reward)

    assert [earned(probes.Chosen(), jnp.ones(1), a(i)) for i in (0, 1)] == [-1, 1]
    assert [earned(probes.Matched(), jnp.full(1, s), a(i)) for s in (1.0, -1.0) for i in (0, 1)] == [-1, 1, 1, -1]
    assert earned(probes.Aim(), -jnp.ones(1), jnp.full(1, -0.5)) == 0 > earned(probes.Aim(), jnp.ones(1), jnp.zeros(1))
    assert earned(probes.Several(), jnp.array([1.0, 2.0]), jnp.array([1, 0])) == 0.5
    assert earned(probes.Bits(), jnp.array([1.0, 0.0, 1.0]), jnp.array([1, 0, 1], jnp.int8)) == 1.0
    legal = jnp.array([True, False, False, True])
    assert [earned(probes.Forbidden(), legal, a(i)) for i in range(4)] == [1, -1, -1, 1]
    image = jnp.full((8, 8, 1), 255, jnp.uint8)
    assert [earned(probes.Pictured(), {"image": image, "vector": -jnp.ones(1)}, a(i)) for i in (0, 1)] == [1, -1]


def test_recall_shows_the_cue_once():
    env = probes.Recall(length=3)
    for seed in range(4):
        (sign, _), step = state_step = env.reset(jax.random.key(seed))
        state = state_step[0]
        assert float(step.obs[0]) == float(sign) != 0
        for t in range(3):
            right = jnp.int32(sign > 0)
            state, step = env.step(state, right, jax.random.key(0))
            assert step.obs[0] == 0 and float(step.reward) == float(t == 2) and bool(step.last) == (t == 2)
        assert float(env.step((sign, jnp.int32(2)), 1 - right, jax.random.key(0))[1].reward) == -1


SPACES = [
    (gs.Box(-1, np.array([1, 2], np.float64), dtype=np.float64), spaces.Box((2,), -1.0, (1.0, 2.0))),
    (gs.Box(0, 255, (4, 5, 3), np.uint8), spaces.Box((4, 5, 3), 0.0, 255.0, "uint8")),
    (gs.Discrete(3, start=5), spaces.Discrete(3)),
    (gs.MultiDiscrete([2, 3], start=[1, -1]), spaces.MultiDiscrete((2, 3))),
    (gs.MultiBinary(4), spaces.MultiBinary(4)),
    (gs.Dict(b=gs.Discrete(2), a=gs.Tuple([gs.Box(0, 1), gs.Discrete(2, start=-1)])),
     spaces.Dict((("a", spaces.Tuple((spaces.Box((1,), 0.0, 1.0), spaces.Discrete(2)))), ("b", spaces.Discrete(2))))),
]  # fmt: skip


@pytest.mark.parametrize("theirs, ours", SPACES, ids=lambda s: type(s).__name__)
def test_spaces_go_there_and_back(theirs, ours):
    assert spaces.from_gymnasium(theirs) == ours
    hash(ours)
    batch = gymnasium.vector.utils.batch_space(theirs, 3)
    batch.seed(0)
    theirs.seed(0)
    sample = batch.sample()
    narrow = spaces.narrow(theirs, sample)
    jax.tree.map(lambda x, zero: _same(x, zero, (3,)), narrow, spaces.zeros(ours))
    spaces.map_leaves(lambda s: None, ours)
    for leaf, space in zip(jax.tree.leaves(narrow), _leaves(ours), strict=True):
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            top = space.n if isinstance(space, spaces.Discrete) else np.asarray(space.ns)
            assert (leaf >= 0).all() and (leaf < top).all()
    back = spaces.widen(theirs, narrow)
    assert batch.contains(back)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), back, sample)


def _leaves(space):
    found = []
    spaces.map_leaves(found.append, space)
    return found


@pytest.mark.parametrize("space", [gs.Text(5), gs.Sequence(gs.Discrete(2)), gs.Dict(a=gs.Text(3))], ids=str)
def test_spaces_refused(space):
    with pytest.raises(TypeError, match=r"(Text|Sequence).*not supported; Box, Discrete"):
        spaces.from_gymnasium(space)


def test_clip_touches_boxes_only():
    space = spaces.Dict.of({"a": spaces.Box((2,), (-1.0, 0.0), 1.0), "b": spaces.Discrete(3)})
    action = {"a": jnp.array([[[-3.0, -3.0], [0.5, 5.0]]]), "b": jnp.array([[7, 1]])}
    out = spaces.clip(space, action)
    np.testing.assert_array_equal(out["a"], [[[-1, 0], [0.5, 1]]])
    np.testing.assert_array_equal(out["b"], action["b"])
    np.testing.assert_array_equal(spaces.clip(spaces.Tuple((space,)), (action,))[0]["a"], out["a"])


def test_make_pure():
    env = make("CartPole-v1", 4)
    assert (type(env), env.batch, env.backend, type(env.env)) == (Vectorised, 4, "jax", CartPole)
    assert make("CartPole-v1", 4, limit=7).env.limit == 7
    assert (
        make(Catch(rows=4), 2).env.rows
        == make(lambda: Catch(rows=4), 2).env.rows
        == make(Catch, 2, rows=4).env.rows
        == 4
    )
    assert make(env, 4) is env


@pytest.mark.parametrize("args, options, message", [
    (("Lunarlander-v3",), {}, r"did you mean LunarLander-v3"),
    (("Catch",), {"backend": "gymnasium"}, r"gymnasium has no Catch; jax has"),
    (("Acrobot-v1",), {"backend": "mujoco"}, r"no backend 'mujoco'; there are jax, envpool, gymnasium"),
    (("CartPole-v1", 0), {}, r"positive, not 0"),
    (("CartPole-v1",), {"gravitas": 1}, r"CartPole-v1.*gravitas"),
    ((Catch(), 2), {"rows": 3}, r"rows"),
    ((Vectorised(Catch(), 2), 3), {}, r"has 2 streams, and 3"),
    ((Catch(), 2), {"backend": "envpool"}, r"runs on jax, not on envpool"),
])  # fmt: skip
def test_make_explains(args, options, message):
    with pytest.raises(YozhError, match=message):
        make(*args, **options)


def test_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    monkeypatch.setattr(
        "yozh.environments.gymnasium.registered", lambda id: id == "Acrobot-v1"
    )  # ale-py registers its own too
    with pytest.raises(YozhError, match=r"pip install 'yozh\[envpool\]'"):
        make("Pong-v5", backend="envpool")
    for id, extra in [("Asterix-MinAtar", "gymnax"), ("ALE/Pong-v5", "atari"), ("Pong-v5", "envpool")]:
        with pytest.raises(
            YozhError, match=rf"^{id} comes with a package that is not installed: pip install 'yozh\[{extra}\]'$"
        ):
            make(id)
    with pytest.raises(
        YozhError, match=r"^no environment 'Catsh'; did you mean Catch\? \(more .* 'yozh\[envpool,gymnax,atari\]'\)$"
    ):
        make("Catsh")
    assert make("Acrobot-v1", 2).backend == "gymnasium"


def test_names_tell_backends():
    known = names()
    assert known["CartPole-v1"] == ("jax", "envpool", "gymnasium")
    for id in ("Catch", "Breakout-MinAtar", "Seaquest-MinAtar", "Asterix-MinAtar"):
        assert known[id] == ("jax",)
    assert "gymnasium" in known["LunarLander-v3"]


def test_import_is_lazy():
    code = "import sys, yozh.environments as e; e.make('Catch', 2); print([m for m in ('envpool', 'gymnax', 'gymnasium') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
