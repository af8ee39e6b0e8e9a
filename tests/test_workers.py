"""Worker processes: the same steps as in this process, whatever becomes of the workers."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import gymnasium.spaces as gs
import jax
import numpy as np
import pytest

from yozh.agents import PPO
from yozh.core import HostEnv, YozhError
from yozh.environments import make
from yozh.environments.gymnasium import GymnasiumHost
from yozh.environments.workers import Workers
from yozh.runners.hosted import Hosted

EXIT, SEGFAULT, RAISE, HANG, KILL, RAISE_NEXT_RESET, EXIT_NEXT_RESET, END = range(1, 9)
SHAPE, KINDS, KEYS, REWARD, PARTS, ARGUMENT, NAN, MASK = range(20, 28)


def troubled(limit=4, mask=False):
    """A function that makes an environment which does what it is told, however bad; it goes to workers by value.

    Observes the time and a draw of the reset's seed.
    """

    class Troubled(gymnasium.Env):
        action_space = gs.Discrete(40)
        observation_space = gs.Dict(x=gs.Box(-np.inf, np.inf, (2,), np.float64), k=gs.Discrete(50, start=-1))

        def _obs(self):
            return {"x": np.array([self.t, self.draw]), "k": self.t - 1}

        def _info(self):
            return {"action_mask": np.arange(40) <= self.t} if mask and self.t != 2 else {}

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            if getattr(self, "then", 0) == EXIT_NEXT_RESET:
                os._exit(4)
            if getattr(self, "then", 0) == RAISE_NEXT_RESET:
                raise RuntimeError("no new episode")
            self.t, self.draw = 0, self.np_random.random()
            return self._obs(), self._info()

        def step(self, action):
            self.t += 1
            obs, reward, info, self.then = self._obs(), 0.5, self._info(), action
            match int(action):
                case 1:
                    os._exit(3)
                case 2:
                    os.kill(os.getpid(), signal.SIGSEGV)
                case 3:
                    raise ValueError("the wheel\ncame off")
                case 4:
                    time.sleep(1000)
                case 5:
                    os.kill(os.getpid(), signal.SIGKILL)
                case 8:
                    return obs, reward, True, False, info
                case 20:
                    obs["x"] = np.zeros(1)
                case 21:
                    obs["k"] = 1.5
                case 22:
                    del obs["x"]
                case 23:
                    reward = None
                case 24:
                    return obs, reward, False, info
                case 25:
                    obs["x"] = [sys._getframe()]
                case 26:
                    reward, obs["x"] = np.float32("nan"), np.full(2, np.nan, np.float32)
                case 27:
                    info = {"action_mask": np.ones(3)}
            return obs, reward, False, self.t == limit, info

    return lambda: Troubled()


@pytest.fixture
def started():
    """`Workers`, closed when the test is over."""
    made = []

    def start(*args, **kwargs):
        made.append(Workers(*args, **kwargs))
        return made[-1]

    yield start
    for env in made:
        env.close()
        assert not any(map(alive, env.pids))


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def act(env, *action):
    env.send(np.asarray(action, np.int32))
    return env.recv()


def same(one, two):
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
    assert jax.tree.structure(one) == jax.tree.structure(two)


def board():
    """Dict with a mask, images, numbers of every kind, a Tuple of actions; ends both ways."""

    class Board(gymnasium.Env):
        observation_space = gs.Dict(
            z=gs.Tuple((gs.Box(0, 255, (3, 2), np.uint8), gs.MultiBinary(2))),
            a=gs.Discrete(9, start=3),
            m=gs.MultiDiscrete([3, 4]),
            s=gs.Box(-1e6, 1e6, (), np.float64),
            action_mask=gs.MultiBinary(3),
        )
        action_space = gs.Tuple((gs.Discrete(3, start=-1), gs.Box(-9, 9, (2,), np.float64)))

        def _obs(self):
            x, sample = self.np_random, self.np_random.integers
            z = (sample(256, size=(3, 2)).astype(np.uint8), [1, 0])
            return {"z": z, "a": sample(3, 12), "m": sample(3, size=2), "s": x.normal() + sum(map(np.sum, self.kept)),
                    "action_mask": sample(2, size=3)}  # fmt: skip

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.kept = []
            return self._obs(), {"action_mask": "not read"}

        def step(self, action):
            self.kept = [*self.kept, *action][-6:]  # an action is the environment's own: later ones do not change it
            end = self.np_random.random()
            return self._obs(), self.np_random.normal(), end < 0.1, 0.05 < end < 0.2, {}

    return lambda: Board()


@pytest.mark.parametrize("name", ["CartPole-v1", "board", "told"])
def test_the_same_steps_as_in_this_process(started, name):
    env = {"board": board(), "told": troubled(5, mask=True)}.get(name, name)
    one, two = GymnasiumHost(env, 5), started(env, 5, 2)
    assert one.spec == two.spec and isinstance(two, HostEnv) and (two.batch, two.backend) == (5, "gymnasium")
    assert one.spec.legal == (name != "CartPole-v1") and len(two.pids) == 2
    rng, ends = np.random.default_rng(0), 0
    for seed in (7, 8):
        step = one.reset(seed)
        same(step, two.reset(seed))
        for _ in range(250):
            number = rng.integers(2, size=5).astype(np.int32) + (10 if name == "told" else 0)
            action = (number, rng.normal(size=(5, 2)).astype(np.float32)) if name == "board" else number
            one.send(action)
            two.send(action)
            step, other = one.recv(), two.recv()
            same(step, other)
            ends += step.last.sum()
    assert ends > 20


def test_steps_are_kept(started):
    """What was handed out is not the memory that the next step writes over."""
    env = started(troubled(mask=True), 2, 1)
    steps = [env.reset(0), act(env, 0, 0), act(env, 8, 0)]
    copies = [jax.tree.map(np.copy, step) for step in steps]
    for _ in range(3):
        act(env, 0, 8)
    for step, copied in zip(steps, copies, strict=True):
        same(step, copied)


@pytest.mark.parametrize("action, told", [
    (EXIT, r"worker 1 ended with status 3"),
    (SEGFAULT, r"worker 1 was killed by SIGSEGV \(test_workers.py:\d+ in step\)"),
    (KILL, r"worker 1 was killed by SIGKILL, as happens when memory runs out"),
    (RAISE, r"worker 1 raised ValueError: the wheel came off \(test_workers.py:\d+ in step: raise .*\)"),
    (HANG, r"worker 1 did not answer for 0.5 s \(test_workers.py:\d+ in step\)"),
], ids=["exit", "segfault", "kill", "raise", "hang"])  # fmt: skip
def test_a_worker_that_falls_is_started_again(started, action, told):
    """Worker 1 falls in stream 4, when stream 3 has made its step already and stream 5 is to open an episode."""
    make = troubled(6, mask=True)
    sync, env = GymnasiumHost(make, 6), started(make, 6, 2, timeout=0.5 if action == HANG else 60.0)
    first, pids = sync.reset(5), env.pids
    same(first, env.reset(5))
    same(act(sync, 0, 0, 0, 0, 0, END), before := act(env, 0, 0, 0, 0, 0, END))
    message = rf"^<lambda>: {told}, at step 2 of stream 4; .*streams 3 to 5 begin new episodes \(restart 1 of 3\)$"
    with pytest.warns(UserWarning, match=message):
        step = act(env, 0, 0, 0, 0, action, 0)
    same(*(jax.tree.map(lambda x: x[:3], s) for s in (act(sync, 0, 0, 0, 0, 0, 0), step)))  # worker 0 knows of nothing
    np.testing.assert_array_equal(step.last, [False, False, False, True, True, False])
    np.testing.assert_array_equal(step.first, [False, False, False, False, False, True])
    np.testing.assert_array_equal(step.discount, np.ones(6))
    np.testing.assert_array_equal(step.reward, [0.5, 0.5, 0.5, 0, 0, 0])
    same(*(jax.tree.map(lambda x: x[3:5], (s.obs, s.extras)) for s in (before, step)))
    assert step.obs["x"][5, 0] == 0 and step.obs["x"][5, 1] not in before.obs["x"][:, 1]
    after = act(env, 0, 0, 0, 0, 0, 0)
    np.testing.assert_array_equal(after.first, [False, False, False, True, True, False])
    np.testing.assert_array_equal(after.obs["x"][:, 0], [3, 3, 3, 0, 0, 1])
    assert after.reward[4] == 0 and after.obs["x"][4, 1] not in before.obs["x"][:, 1]
    assert env.pids[0] == pids[0] and env.pids[1] != pids[1] and not alive(pids[1])
    same(first, env.reset(5))


def test_a_worker_may_fall_at_any_time(started):
    """Between two steps, in a reset by itself, in `reset`, and while it is started again; the mask is told on."""
    env = started(troubled(3, mask=True), 2, 1, restarts=6)
    env.reset(0)
    before = act(env, 0, 0)
    os.kill(env.pids[0], signal.SIGTERM)
    with pytest.warns(UserWarning, match="worker 0 was killed by SIGTERM, at step 2 of"):
        step = act(env, 0, 0)
    assert step.last.all() and (step.discount == 1).all()
    np.testing.assert_array_equal(step.extras["legal"], before.extras["legal"])
    assert act(env, 0, 0).first.all()
    act(env, 0, 0), act(env, 0, 0)
    assert act(env, EXIT_NEXT_RESET, RAISE_NEXT_RESET).last.all()
    with pytest.warns(UserWarning, match="worker 0 ended with status 4, at step 7 of stream 0"):
        assert act(env, 0, 0).first.all()
    act(env, 0, RAISE_NEXT_RESET)
    with pytest.warns(
        UserWarning, match=r"raised RuntimeError: no new episode .*, at step 0 of stream 1.*restart 3 of 6"
    ):
        step = env.reset(0)
    assert step.first.all() and not step.last.any()


def test_restarts_come_to_an_end(started):
    env = started(troubled(), 2, 2, restarts=1)
    env.reset(0)
    with pytest.warns(UserWarning, match="restart 1 of 1"):
        step = act(env, 0, EXIT)
    np.testing.assert_array_equal(step.last, [False, True])  # the first step after `reset` already
    np.testing.assert_array_equal(step.obs["x"][:, 0], [1, 0])
    with pytest.raises(YozhError, match=r"^<lambda>: worker 1 ended with status 3, at step 1 of stream 1; "
                       r"worker 0 raised ValueError.* at step 2 of stream 0; no more than 1 restarts are allowed$"):  # fmt: skip
        act(env, RAISE, 0)
    assert not any(map(alive, env.pids))
    with pytest.raises(YozhError, match="its workers are closed"):
        env.send(np.zeros(2, np.int32))


@pytest.mark.parametrize("action, told", [
    (SHAPE, r"observation\.x has shape \(1,\), and \(2,\) is declared"),
    (KINDS, r"observation\.k is float64, which does not go into the declared int64"),
    (KEYS, r"observation\.x is missing from the keys k"),
    (REWARD, r"the reward is None, and a number is expected"),
    (PARTS, r"step returned 4 values, and \(observation, reward, terminated, truncated, info\) is expected"),
    (ARGUMENT, r"the observation is a dict, and cannot be shown: .*"),
    (MASK, r"info\['action_mask'\] has shape \(3,\), and had \(40,\) at first"),
])  # fmt: skip
def test_what_is_no_step_is_an_error_at_once(started, action, told):
    env = started(troubled(mask=True), 2, 1)
    env.reset(0)
    act(env, 0, 0)
    with pytest.raises(YozhError, match=rf"^<lambda>: ({told}), at step 2 of stream 1$"):
        act(env, 0, action)
    assert not any(map(alive, env.pids))


def test_nan_passes(started):
    env = started(troubled(), 2, 1)
    env.reset(0)
    step = act(env, NAN, 0)
    np.testing.assert_array_equal(np.isnan(step.reward), [True, False])
    np.testing.assert_array_equal(np.isnan(step.obs["x"]).all(1), [True, False])


def test_a_worker_is_light(started, tmp_path, monkeypatch):
    """It runs one thread of arithmetic and never loads JAX; `module:function` is found where the parent finds it."""
    (tmp_path / "light.py").write_text(
        "import os, sys, gymnasium, numpy as np\n"
        "class Light(gymnasium.Env):\n"
        "    observation_space = gymnasium.spaces.Box(-9, 9, (3,))\n"
        "    action_space = gymnasium.spaces.Discrete(2)\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        told = [os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'], 'jax' in sys.modules]\n"
        "        return np.array(told, np.float32), {}\n"
        "def light():\n    return Light()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for env in (started("light:light", 2, 1), make("light:light", 2, workers=1)):
        np.testing.assert_array_equal(env.reset(0).obs, [[1, 1, 0]] * 2)
        env.close()


def test_ids_that_only_this_process_knows(started):
    gymnasium.register("Troubled-v0", troubled(), max_episode_steps=2)
    try:
        env = make("Troubled-v0", 2, workers=True)
        assert isinstance(env, Workers) and env.reset(0).first.all()
        assert not act(env, 0, 0).last.any() and act(env, 0, 0).last.all()
        env.close()
    finally:
        del gymnasium.registry["Troubled-v0"]
    env = make("Pendulum-v1", 3, workers=8, g=0.0, max_episode_steps=5)
    assert len(env.pids) == 3
    env.reset(0)
    for _ in range(5):
        env.send(np.zeros((3, 1), np.float32))
        step = env.recv()
    assert step.last.all() and step.discount.all()
    env.close()


def test_what_cannot_be_made():
    def missing():
        raise gymnasium.error.DependencyNotInstalled("no wheel is installed")

    lock = (x for x in ())
    for env, told in [
        (lambda: lock, r"<lambda> cannot be sent to a worker process: .*generator"),
        (missing, "^missing: no wheel is installed$"),
        (lambda: 3, r"worker 0 raised TypeError: a Gymnasium environment is expected, and a int was made before"),
        (lambda: os._exit(9), r"worker 0 ended with status 9 before the first step"),
        ("Nonsense-v0", "no environment 'Nonsense-v0'"),
        (gymnasium.make("CartPole-v1"), "give a function"),
        (gymnasium.vector.SyncVectorEnv([troubled()]), "is made already, and workers make their own"),
    ]:
        with pytest.raises(YozhError, match=told):
            Workers(env, 1)
    for wrong in ({"processes": 0}, {"timeout": 0.0}, {"restarts": -1}):
        with pytest.raises(YozhError, match=f"{next(iter(wrong))} must"):
            Workers(troubled(), 1, **wrong)


def test_close_ends_workers_and_may_be_called_again(started):
    env = started(troubled(), 2, 2)
    env.reset(0)
    for pid in env.pids:
        os.kill(pid, signal.SIGINT)  # the terminal's Ctrl-C is the parent's business
    pids = env.pids
    assert not act(env, 0, 0).last.any() and env.pids == pids
    env.send(np.asarray([0, HANG], np.int32))
    began = time.monotonic()
    env.close()
    assert time.monotonic() - began < 20 and not any(map(alive, env.pids))
    env.close()


SCRIPT = """
import sys, time
import numpy as np
from tests.test_workers import HANG, troubled
from yozh.environments.workers import Workers
if __name__ == "__main__":
    env = Workers(troubled(), 2, 2)
    env.reset(0)
    env.send(np.asarray([0, HANG if sys.argv[1] == "hang" else 0], np.int32))
    print(*env.pids, flush=True)
    time.sleep(0 if sys.argv[1] == "leave" else 1000)
"""


@pytest.mark.parametrize("how", ["idle", "hang", "leave"])
def test_workers_do_not_outlive_the_parent(how):
    """Killed without a chance to clean up, or ended without closing: no process and no shared memory is left."""
    before = set(os.listdir("/dev/shm"))
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, how], stdout=subprocess.PIPE, text=True)
    pids = [int(x) for x in parent.stdout.readline().split()]
    assert len(pids) == 2 and (how == "leave" or all(map(alive, pids)))
    if how != "leave":
        parent.kill()
    parent.wait(30)
    until = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, pids))
    assert not {name for name in set(os.listdir("/dev/shm")) - before if re.search("yozh|psm_", name)}
    parent.stdout.close()


@pytest.mark.slow
def test_training_goes_on(started):
    """An agent learns on, through a worker's death."""
    env = started("CartPole-v1", 2, 2)
    runner = Hosted(PPO(streams=2, length=8, minibatches=1, epochs=1), env)
    run = runner.init(jax.random.key(0))
    runner.compile(run)
    os.kill(env.pids[0], signal.SIGKILL)
    with pytest.warns(UserWarning, match="CartPole-v1: worker 0 .* begin new episodes"):
        run, _ = runner.advance(run, 3)
    assert int(run.state.counts.updates) == 3 and not int(run.fault.quantity)
