"""Exported policies: what they say is what the policy says, in the program that reads them."""

import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import yozh
from yozh.agents import A2C, DQN, PPO
from yozh.agents.scales import PopArt
from yozh.app import export
from yozh.app.cli import main
from yozh.core import Agent, Spec, YozhError
from yozh.networks import CNN, GRU, LSTM
from yozh.networks.cores import CoreBlueprint
from yozh.runners.policy import Policy
from yozh.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

onnxruntime = pytest.importorskip("onnxruntime")

VECTOR = Box((4,), -2.0, 2.0)
MIXED = Dict.of({"image": Box((10, 10, 3), 0, 255, "uint8"), "goal": Discrete(4), "inner": Dict.of({"v": Box((2,))}),
                 "several": MultiDiscrete((2, 3)), "bits": MultiBinary(3)})  # fmt: skip


pytestmark = pytest.mark.usefixtures("unchecked")


class Delay(CoreBlueprint):
    """What was seen two steps ago: the younger memory matters to no action at once, but to a later one."""

    def build(self, inputs: int, key: jax.Array) -> "Delayed":
        return Delayed(inputs)


class Delayed(eqx.Module):
    size: int = eqx.field(static=True)

    def initial_memory(self) -> tuple[jax.Array, jax.Array]:
        return jnp.zeros(self.size), jnp.zeros(self.size)

    def __call__(
        self, x: jax.Array, memory: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        older, younger = memory
        return older, (younger, x)


CASES: dict[str, tuple[Agent, Spec, str, str]] = {
    "mlp": (PPO(), Spec(VECTOR, Discrete(3)), "obs", "action logits"),
    "normalised": (PPO(normalise_observations=True, scale_rewards=True), Spec(VECTOR, Discrete(3)), "obs", "action logits"),
    "continuous": (PPO(), Spec(Box((3,)), Box((2,), -0.001, 0.001)), "obs", "action mean log_std"),
    "squashed": (A2C(squash=True), Spec(VECTOR, Box((2,), (-2.0, 0.0), (2.0, 3.0))), "obs", "action mean log_std"),
    "q": (DQN(dueling=True), Spec(VECTOR, Discrete(3)), "obs", "action q"),
    "masked q": (DQN(), Spec(Discrete(5), Discrete(3), legal=True), "obs legal", "action q"),
    "cnn": (DQN(torso=CNN((4,), (3,), (1,), (8,))), Spec(Box((10, 10, 4), 0, 1, "bool"), Discrete(3)), "obs", "action q"),
    "frames first": (PPO(torso=CNN((4, 4), (4, 3), (2, 1), (8,))), Spec(Box((4, 20, 20), 0, 255, "uint8"), Discrete(3)),
                     "obs", "action logits"),
    "gru": (PPO(core=GRU(8)), Spec(VECTOR, Discrete(3)), "obs first memory.0", "action logits memory_out.0"),
    "lstm": (PPO(core=LSTM(8), shared=True, normalise_observations=True), Spec(VECTOR, Box((2,), -1.0, 1.0)),
             "obs first memory.0 memory.1", "action mean log_std memory_out.0 memory_out.1"),
    "delayed": (PPO(core=Delay(), shared=True), Spec(VECTOR, Discrete(3)), "obs first memory.0 memory.1",
                "action logits memory_out.0 memory_out.1"),
    "several": (PPO(), Spec(VECTOR, MultiDiscrete((2, 3)), legal=True), "obs legal", "action logits"),
    "bits": (PPO(), Spec(VECTOR, MultiBinary(3)), "obs", "action logits"),
    "dict": (PPO(core=GRU(8)), Spec(MIXED, Discrete(2), legal=True),
             "obs.bits obs.goal obs.image obs.inner.v obs.several legal first memory.0", "action logits memory_out.0"),
    "tasks": (DQN(scale=PopArt(task="goal")), Spec(MIXED, Discrete(3)), "obs.bits obs.goal obs.image obs.inner.v obs.several",
              "action q"),
    "tuple": (PPO(), Spec(Tuple((VECTOR, Discrete(2))), Discrete(2)), "obs.0 obs.1", "action logits"),
}  # fmt: skip


def untrained(name: str) -> Policy:
    """A policy whose weights are as large as training makes them, so that outputs differ and bounds are met."""
    agent, spec = CASES[name][:2]
    params = agent.policy(agent.init(jax.random.key(1), spec))
    noise = iter(jax.random.split(jax.random.key(2), 100))

    def grown(x: jax.Array) -> jax.Array:
        return x + 0.3 * jnp.abs(jax.random.normal(next(noise), x.shape)) if x.dtype == jnp.float32 else x

    return Policy(agent, jax.tree.map(grown, params), spec, "Field-v0")


class Called(eqx.Module):
    """A torso that asks Python, which no format can."""

    def __call__(self, obs: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct(obs.shape, obs.dtype)
        return jax.pure_callback(np.sin, shape, obs, vmap_method="sequential")


@pytest.mark.parametrize("to", ["onnx", pytest.param("stablehlo", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_the_exported_policy_says_the_same(name: str, to: str, tmp_path: Path):
    done = export.export(untrained(name), to=to, out=tmp_path / "policy")
    assert " ".join(done.inputs) == CASES[name][2] and " ".join(done.outputs) == CASES[name][3]
    assert done.error <= export.TOLERANCE and done.compared == 216


def test_onnx_is_read_without_yozh(tmp_path: Path):
    """By name, for a batch of any size, with the spaces in its metadata."""
    policy = untrained("gru")
    path = export.export(policy, to="onnx", out=tmp_path / "policy.onnx").path
    session = onnxruntime.InferenceSession(path.read_bytes())
    about = json.loads(session.get_modelmeta().custom_metadata_map["yozh"])
    assert about["spec"]["observation"]["shape"] == [4] and about["env"] == "Field-v0" and about["agent"] == "PPO"
    assert about["inputs"]["memory.0"] == ["float32", ["batch", 8]]
    obs = np.random.default_rng(3).normal(size=(5, 7, 4)).astype(np.float32)
    memory = np.full((7, 8), 9.0, np.float32)
    for t in range(5):
        given = {"obs": obs[t], "first": np.full(7, t == 0), "memory.0": memory}
        action, memory = session.run(["action", "memory_out.0"], given)
        assert (action == policy(obs[t])).all()


def test_stablehlo_is_read_by_jax_alone(tmp_path: Path):
    policy = untrained("dict")
    path = export.export(policy, to="stablehlo", out=tmp_path / "policy.stablehlo").path
    loaded = jax.export.deserialize(bytearray(path.read_bytes()))
    about = json.loads((tmp_path / "policy.stablehlo.json").read_text())
    assert set(loaded.platforms) == {"cpu", "cuda"} == set(about["platforms"])
    given = {n: np.ones((2, *shape[1:]), dtype) for n, (dtype, shape) in about["inputs"].items()}
    obs = {k: given[f"obs.{k}"] for k in ("bits", "goal", "image", "several")} | {"inner": {"v": given["obs.inner.v"]}}
    assert (loaded.call(given)["action"] == policy(obs, given["legal"])).all()


def test_a_difference_is_found_and_nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A runner that errs in an action, in an output, in memory, or forgets to clear it."""
    policy = untrained("gru")
    honest = export._FORMATS["onnx"]

    def lying(change):
        def write(function, about):
            content, run, about = honest(function, about)
            return content, lambda given: change(run, given), about

        return write

    def off(name, by):
        return lambda run, given: (found := run(given)) | {name: found[name] + np.asarray(by, found[name].dtype)}

    lies = {"action": off("action", 1), "logits": off("logits", 1e-3), "memory_out.0": off("memory_out.0", 1e-3),
            "logits|action": lambda run, given: run(given | {"first": np.zeros_like(given["first"])})}  # fmt: skip
    for name, lie in lies.items():
        monkeypatch.setitem(export._FORMATS, "onnx", lying(lie))
        with pytest.raises(YozhError, match=f"the exported ({name}) differs from the policy's"):
            export.export(policy, to="onnx", out=tmp_path / "policy.onnx")
    monkeypatch.setitem(export._FORMATS, "onnx", lying(off("logits", 1e-3)))
    with pytest.raises(YozhError, match="the exported logits differs"):
        export.export(untrained("several"), to="onnx", out=tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    agent, spec = PPO(torso=Called()), Spec(VECTOR, Discrete(2))
    policy = Policy(agent, agent.policy(agent.init(jax.random.key(0), spec)), spec)
    for to in ("onnx", "stablehlo"):
        with pytest.raises(YozhError, match=f"this policy cannot be written as {to} .*"):
            export.export(policy, to=to, out=tmp_path / "policy")
    with pytest.raises(YozhError, match="there is no format 'tflite'; there are onnx, stablehlo"):
        export.export(policy, to="tflite", out=tmp_path / "policy")
    with pytest.raises(YozhError, match=r"there is no folder .*nowhere for policy"):
        export.export(policy, to="onnx", out=tmp_path / "nowhere" / "policy")
    with pytest.raises(YozhError, match=r"say where the policy goes: out='policy.onnx'"):
        export.export(policy, to="onnx")
    monkeypatch.setitem(__import__("sys").modules, "jax2onnx", None)
    with pytest.raises(YozhError, match=r"pip install 'yozh\[export\]'"):
        export.export(policy, to="onnx", out=tmp_path / "policy")
    assert not list(tmp_path.iterdir())


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    untrained("lstm").save(tmp_path / "policy.safetensors")
    assert main(["export", str(tmp_path), "--to", "onnx"]) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path}/policy.onnx: obs, first, memory.0, memory.1 -> action, mean, log_std, memory_out.0" in out
    assert "differs from the policy by" in out and (tmp_path / "policy.onnx").exists()
    assert main(["export", str(tmp_path)]) == 2
    assert "export needs POLICY and TO: yozh export runs/lander --to onnx" in capsys.readouterr().err
    done = yozh.export(tmp_path / "policy.safetensors", to="stablehlo")
    assert done.path == tmp_path / "policy.stablehlo"
