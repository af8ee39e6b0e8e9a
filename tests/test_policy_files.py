"""The policy file: the same actions everywhere it is loaded, and a plain refusal of whatever is no such file."""

import json
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as write_tensors

import yozh
from yozh.agents import DQN, PPO
from yozh.agents.schedules import over
from yozh.core import Spec, YozhError
from yozh.environments import probes
from yozh.environments.batched import Vectorised
from yozh.environments.classic import CartPole
from yozh.networks import GRU, LSTM, MLP
from yozh.runners import evaluation, policy
from yozh.runners.policy import Policy
from yozh.spaces import Box, Dict, Discrete

SPEC = Spec(Box((3,), -1.0, 1.0), Discrete(2))
SMALL = PPO(torso=MLP((4,)), normalise_observations=True)


def untrained(agent: Any = SMALL, spec: Spec = SPEC, seed: int = 0) -> Policy:
    return Policy(agent, agent.policy(agent.init(jax.random.key(seed), spec)), spec, "Field-v0")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    untrained().save(tmp_path / "policy.safetensors")
    return tmp_path / "policy.safetensors"


def parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def whole(header: dict[str, Any] | str, tensors: bytes) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + tensors


Change = Callable[[dict[str, Any]], Any]


def header(change: Change) -> Callable[[bytes], bytes]:
    """A file whose header was changed."""

    def apply(content: bytes) -> bytes:
        head, tensors = parts(content)
        change(head)
        return whole(head, tensors)

    return apply


def description(change: Change) -> Callable[[bytes], bytes]:
    """A file whose description was changed."""

    def apply(head: dict[str, Any]) -> None:
        text = json.loads(head["__metadata__"]["policy"])
        text = change(text) or text
        head["__metadata__"]["policy"] = json.dumps(text)

    return header(apply)


def put(*path: Any) -> Change:
    """Sets what the last but one names to the last."""
    *way, last, value = path

    def change(data: Any) -> None:
        for key in way:
            data = data[key]
        data[last] = value

    return change


def told(name: str, value: str) -> Callable[[bytes], bytes]:
    return header(put("__metadata__", name, value))


class Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


WEIGHT = "net.actor.torso.layers.layers.0.weight"
HUGE = 10**12

BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda c: b"", "is not a policy file: it has 0 bytes"),
    "seven bytes": (lambda c: c[:7], "is not a policy file: it has 7 bytes"),
    "only a length": (lambda c: c[:8], "is not a policy file: it has 8 bytes, and its header would have"),
    "half": (lambda c: c[: len(c) // 2], "is not a policy file: "),
    "a byte short": (lambda c: c[:-1], "is not a policy file: "),
    "a byte more": (lambda c: c + b"\0", "is not a policy file: "),
    "text": (lambda c: b"hello, I am a policy", "is not a policy file: it has 20 bytes, and its header would have"),
    "pickle": (lambda c: pickle.dumps(Bomb()), "is not a policy file: "),
    "padded pickle": (lambda c: pickle.dumps(Bomb()) + c, "is not a policy file: "),
    "pickle in a header": (lambda c: whole("x", b"") + pickle.dumps(Bomb()), "is not a policy file: "),
    "huge header": (lambda c: (2**62).to_bytes(8, "little") + c[8:], "its header would have 4,611,686,018,427,387,904"),
    "header is no JSON": (lambda c: whole("{" * 50, parts(c)[1]), "is not a policy file: "),
    "header is a list": (lambda c: whole("[1]", parts(c)[1]), "is not a policy file: "),
    "header too long": (lambda c: whole(" " * (policy.HEADER + 1), b""), "a header of 8,388,609 bytes is longer than any"),
    "no metadata": (header(lambda h: h.pop("__metadata__")), "holds tensors, but no policy of Yozh"),
    "other library": (lambda c: write_tensors({"w": np.ones(3, np.float32)}, {"format": "pt"}), "no policy of Yozh (its format is 'pt'"),
    "other version": (told("format", "yozh-policy-2"), "is of another version of Yozh (its format is 'yozh-policy-2', not 'yozh-policy-1')"),
    "no description": (header(lambda h: h["__metadata__"].pop("policy")), "its description cannot be read: KeyError"),
    "description is no JSON": (told("policy", "{"), "its description cannot be read: JSONDecodeError"),
    "description is a list": (told("policy", "[]"), "its description cannot be read: TypeError"),
    "deep": (told("policy", '{"spec":' + "[" * 100_000), "its description cannot be read: RecursionError"),
    "long number": (told("policy", '{"spec": ' + "9" * 10_000 + "}"), "its description cannot be read: ValueError"),
    "no spec": (description(lambda d: d.pop("spec")) , "its description cannot be read: KeyError"),
    "spec is an agent": (description(lambda d: d | {"spec": d["agent"]}), "does not describe a policy"),
    "agent is a space": (description(lambda d: d | {"agent": d["spec"]}), "does not describe a policy"),
    "agent is a number": (description(put("agent", 3)), "does not describe a policy"),
    "environment is a list": (description(put("env", [1])), "does not describe a policy"),
    "foreign class": (description(put("agent", "class", "subprocess.Popen")), "subprocess.Popen is not part of this Yozh"),
    "builtin": (description(put("agent", "torso", "class", "builtins.exec")), "builtins.exec is not part of this Yozh"),
    "imported into yozh": (description(put("agent", "class", "yozh.settings.importlib")), "is not part of this Yozh"),
    "an environment": (description(put("agent", {"class": "yozh.environments.envpool.EnvPool", "id": "Pong-v5", "n": HUGE})),
                       "yozh.environments.envpool.EnvPool is not part of this Yozh"),
    "an app": (description(put("agent", "class", "yozh.app.folder.RunFolder")), "is not part of this Yozh"),
    "no identifier": (description(put("agent", "class", "yozh.agents/../x.PPO")), "is not part of this Yozh"),
    "unknown class": (description(put("agent", "class", "yozh.agents.ppo.PPPO")), "yozh.agents.ppo.PPPO is not part of this Yozh"),
    "unknown field": (description(put("agent", "gama", 0.9)), "yozh.agents.ppo.PPO has no gama"),
    "function": (description(put("agent", "torso", {"python": "os.system"})), "os.system is not part of Yozh"),
    "bad value": (description(put("agent", "gamma", 7.0)), "gamma lies in [0, 1], not 7"),
    "text for a number": (description(put("agent", "gamma", "high")), "its description cannot be read: "),
    "list for a part": (description(put("agent", "torso", [1, 2])), "its description cannot be read: "),
    "wide network": (description(put("agent", "torso", "widths", [HUGE])), WEIGHT + " is F32(4, 3), not F32(1000000000000, 3)"),
    "deep network": (description(put("agent", "torso", "widths", [1] * 1000)), "a list of 1,000 elements is longer than any"),
    "huge core": (description(put("agent", "core", {"class": "yozh.networks.cores.GRU", "size": 10**9})), "lacks net.actor.core"),
    "huge observation": (description(put("spec", "observation", "shape", [HUGE])), "an observation or action of 4,000,000,000,000 bytes"),
    "huge letters": (description(put("spec", "observation", "dtype", f"S{10**9}")), "an observation or action of 3,000,000,000 bytes"),
    "huge choice": (description(put("spec", "action", "n", HUGE)), "net.policy.layer.weight is F32(2, 4), not F32(1000000000000, 4)"),
    "endless choice": (description(put("spec", "action", "n", 10**30)), "net.policy.layer.weight is F32(2, 4), not F32(1000000"),
    "negative": (description(put("spec", "observation", "shape", [-3])), "its description cannot be read: "),
    "long list": (description(put("spec", "observation", "low", [0] * 70_000)), "a list of 70,000 elements is longer than any"),
    "wrong kind of space": (description(put("spec", "action", {"class": "yozh.spaces.Dict", "items": []})), "its description cannot be read: "),
    "too few tensors": (header(lambda h: h.pop("net.value.weight")), "is not a policy file: "),
    "renamed tensor": (header(lambda h: h.update(other=h.pop("net.value.weight"))), "holds tensors that its description does not ask for: other"),
    "lying shape": (header(put(WEIGHT, "shape", [3, 4])), WEIGHT + " is F32(3, 4), not F32(4, 3)"),
    "shape against size": (header(put(WEIGHT, "shape", [400, 3])), "is not a policy file: "),
    "overflowing shape": (header(put(WEIGHT, "shape", [2**63, 4])), "is not a policy file: "),
    "negative shape": (header(put(WEIGHT, "shape", [-4, 3])), "is not a policy file: "),
    "lying type": (header(put(WEIGHT, "dtype", "I32")), WEIGHT + " is I32(4, 3), not F32(4, 3)"),
    "unknown type": (header(put(WEIGHT, "dtype", "F31")), "is not a policy file: "),
    "beyond the end": (header(put(WEIGHT, "data_offsets", [0, 10**9])), "is not a policy file: "),
    "backwards": (header(put(WEIGHT, "data_offsets", [48, 0])), "is not a policy file: "),
    "overlapping": (header(lambda h: h.update({WEIGHT: h[WEIGHT] | {"data_offsets": h["net.actor.torso.layers.layers.0.bias"]["data_offsets"]}})), "is not a policy file: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_and_hostile_files_are_refused(name: str, saved: Path, monkeypatch: pytest.MonkeyPatch):
    """By name of the file and the reason, and nothing is executed."""
    monkeypatch.chdir(saved.parent)
    hurt, reason = BROKEN[name]
    saved.write_bytes(hurt(saved.read_bytes()))
    with pytest.raises(YozhError, match=re.escape(str(saved))) as caught:
        yozh.load(saved)
    assert reason in str(caught.value) and len(str(caught.value)) < 600
    assert not Path("exploded").exists()


def test_what_is_no_file_is_refused(tmp_path: Path, saved: Path):
    with pytest.raises(YozhError, match="there is no policy at nowhere"):
        yozh.load("nowhere")
    (tmp_path / "run" / "policy.safetensors").mkdir(parents=True)
    with pytest.raises(YozhError, match=r"there is no policy at .*run.policy.safetensors"):
        yozh.load(tmp_path / "run")
    with pytest.raises(YozhError, match="there is no policy at /dev/zero"):
        yozh.load("/dev/zero")


def test_a_tensor_too_many_is_refused(saved: Path):
    head, _ = parts(saved.read_bytes())
    tensors = read_tensors(saved.read_bytes()) | {"payload": np.zeros(1000, np.uint8)}
    saved.write_bytes(write_tensors(tensors, head["__metadata__"]))
    with pytest.raises(YozhError, match="holds tensors that its description does not ask for: payload"):
        yozh.load(saved)


def test_numbers_that_are_none_are_loaded_with_a_warning(saved: Path):
    head, _ = parts(saved.read_bytes())
    tensors = read_tensors(saved.read_bytes())
    tensors[WEIGHT] = np.full_like(tensors[WEIGHT], np.nan)
    saved.write_bytes(write_tensors(tensors, head["__metadata__"]))
    with pytest.warns(UserWarning, match=f"{saved}: {WEIGHT} .* not finite"):
        assert np.shape(yozh.load(saved)(np.zeros(3))) == ()


LIMITED = """
import resource, sys, yozh
from yozh.core import YozhError
from yozh.runners.policy import load
load(sys.argv[1])  # everything is imported and the threads are there
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
for path in sys.argv[2:]:
    try:
        load(path)
    except YozhError as error:
        print("refused", str(error)[:300].splitlines()[0])
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmPeak")) * 1024
print("grew", (peak - used) // 2**20, "MiB")
"""


@pytest.mark.slow
def test_memory_stays_bounded(saved: Path):
    """300 MiB more than an honest file took are enough to refuse files that ask for terabytes."""
    names = ("huge header", "header too long", "deep", "wide network", "huge core", "huge observation", "huge letters",
             "huge choice", "long list", "an environment")  # fmt: skip
    paths = []
    for name in names:
        paths.append(saved.with_name(f"{name}.safetensors"))
        paths[-1].write_bytes(BROKEN[name][0](saved.read_bytes()))
    done = subprocess.run([sys.executable, "-c", LIMITED, saved, *paths], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(names) + 1, done.stdout
    for line, name in zip(lines, names, strict=False):
        assert line.startswith("refused") and BROKEN[name][1][:40] in line and "MemoryError" not in line


REAL = write_tensors(
    {name: np.asarray(x) for name, x in policy._named(untrained().params)},
    {"format": policy.FORMAT, "policy": json.dumps({"agent": policy.describe(SMALL), "spec": policy.describe(SPEC), "env": "Field-v0"})},
)  # fmt: skip
HEAD = 8 + int.from_bytes(REAL[:8], "little")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.none() | st.integers(0, len(REAL)),
    changes=st.lists(
        st.tuples(st.integers(0, HEAD - 1) | st.integers(0, len(REAL) - 1), st.integers(0, 255)), max_size=4
    ),
)
def test_whatever_happens_to_a_file(tmp_path: Path, cut: int | None, changes: list[tuple[int, int]]):
    """Changed bytes and a lost end: a policy of the same shapes, or a `YozhError`."""
    content = bytearray(REAL)
    for place, byte in changes:
        content[place] = byte
    (tmp_path / "policy.safetensors").write_bytes(content[:cut])
    try:
        with warnings.catch_warnings(action="ignore"):
            found = yozh.load(tmp_path)
    except YozhError:
        return
    expected = untrained().params
    assert jax.tree.structure(found.params.net) == jax.tree.structure(expected.net) or bytes(content) != REAL
    assert [x.shape for x in jax.tree.leaves(found.params)] == [x.shape for x in jax.tree.leaves(expected)]


OBSERVED = Spec(Dict.of({"a": Box((3,)), "b": Discrete(4)}), Discrete(3), legal=True)
FRESH = """
import sys, json, numpy as np, yozh
policy = yozh.load(sys.argv[1])
said = [policy({"a": np.asarray(a, np.float32), "b": b}, [True, True, False]) for a, b in json.loads(sys.argv[2])]
print(json.dumps([int(x) for x in said]))
"""


@pytest.mark.slow
def test_a_fresh_process_needs_the_file_alone(tmp_path: Path):
    one = untrained(PPO(core=LSTM(8), normalise_observations=True), OBSERVED)
    one.params = jax.tree.map(
        lambda x: x + jax.random.normal(jax.random.key(1), x.shape) if x.ndim == 2 else x, one.params
    )
    one.save(tmp_path / "somewhere.safetensors")
    rng = np.random.default_rng(0)
    seen = [(rng.normal(size=3).astype(np.float32).tolist(), int(rng.integers(4))) for _ in range(30)]
    said = [int(one({"a": a, "b": b}, [True, True, False])) for a, b in seen]
    assert set(said) == {0, 1}
    command = [sys.executable, "-c", FRESH, tmp_path / "somewhere.safetensors", json.dumps(seen)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(Path(__file__).parents[1]), "JAX_PLATFORMS": "cpu"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == said


PLAYED = {
    "feed-forward": (PPO(), CartPole(limit=50)),
    "recurrent": (PPO(core=GRU(8)), probes.Recall()),
    "squashed": (PPO(squash=True, normalise_observations=True, scale_rewards=True), probes.Aim()),
    "masked": (DQN(), probes.Forbidden()),
    "pictures": (PPO(core=LSTM(4), torso=MLP((8,))), probes.Pictured()),
}


@pytest.mark.parametrize("name", PLAYED)
def test_evaluation_asks_the_policy(name: str, tmp_path: Path):
    """The returns of `evaluate` are those of calling the loaded policy step by step, episodes ending when they will."""
    agent, pure = PLAYED[name]
    env = Vectorised(pure, 3)
    one = untrained(over(agent, 100), env.spec, seed=4)
    one.params = jax.tree.map(lambda x: x + 0.2 if x.dtype == jnp.float32 else x, one.params)
    one.save(tmp_path / "policy.safetensors")
    found = evaluation.evaluate(one.agent, one.params, env, episodes=9, seed=7)
    loaded = yozh.load(tmp_path / "policy.safetensors")
    state, step = jax.jit(lambda key: env.reset(key))(jax.random.split(jax.random.key(7))[0])
    total, returns, advance = np.zeros(3), [[], [], []], jax.jit(lambda *now: env.step(*now))
    while min(map(len, returns)) < 3:
        action = loaded(step.obs, step.extras.get("legal"), first=step.first)
        state, step = advance(state, action)
        total = np.where(step.first, 0.0, total + np.asarray(step.reward))
        for i in np.flatnonzero(step.last):
            returns[i].append(total[i])
    np.testing.assert_array_equal(np.array([r[:3] for r in returns]).T.ravel(), np.float32(found["returns"]))


def test_memory_is_kept_from_call_to_call_until_reset():
    one = untrained(PPO(core=GRU(8)), SPEC)
    one.params = jax.tree.map(
        lambda x: x + jax.random.normal(jax.random.key(1), x.shape) if x.ndim == 2 else x, one.params
    )
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(40, 2, 3)).astype(np.float32)
    batched = np.stack([one(x) for x in seen])
    one.reset()
    assert (np.stack([one(x[0]) for x in seen]) == batched[:, 0]).all(), "one stream alone says the same"
    forgetful = []
    for x in seen:
        one.reset()
        forgetful.append(one(x))
    assert (np.stack(forgetful) != batched).any(), "memory matters"
    one.reset()
    again = np.stack([one(x, first=[t == 20, False]) for t, x in enumerate(seen)])
    one.reset()
    assert (again[:, 1] == batched[:, 1]).all() and (again[20:, 0] == np.stack([one(x[0]) for x in seen[20:]])).all()
    with pytest.raises(YozhError, match=r"the policy remembers 1 streams, and 2 came: call reset\(\)"):
        one(seen[0])


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        (np.zeros(4), r"the policy takes Box\(3,\).*, one or a batch, and an array of shape \(4,\) came"),
        (np.zeros((2, 2, 3)), r"an array of shape \(2, 2, 3\) came"),
        (["a", "b", "c"], "one or a batch: could not convert"),
        ([[1, 2, 3], [1, 2]], "one or a batch: setting an array element"),
    ],
)
def test_observations_of_another_kind_are_refused(obs: Any, message: str):
    with pytest.raises(YozhError, match=message):
        untrained()(obs)


def test_parts_of_another_kind_are_refused():
    one = untrained(PPO(), OBSERVED)
    with pytest.raises(YozhError, match=r"Dict\(a: Box.*, b: Discrete\(4\)\), one or a batch: "):
        one({"a": np.zeros(3)}, [True] * 3)
    with pytest.raises(YozhError, match="its parts come with different leading axes"):
        one({"a": np.zeros((2, 3)), "b": 1}, [True] * 3)
    with pytest.raises(YozhError, match="this policy needs the mask of legal actions"):
        one({"a": np.zeros(3), "b": 1})
