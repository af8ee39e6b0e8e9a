"""Policies in formats that other programs run: ONNX and StableHLO."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yozh import spaces
from yozh.app.function import Arrays, Function, named
from yozh.core import YozhError, require
from yozh.files import atomic_write
from yozh.networks.torsos import flat_size
from yozh.runners.policy import Policy, load
from yozh.settings import describe

TOLERANCE = 1e-5
"""Largest difference from the policy, as a share of the largest number of the output where that is above 1."""

BATCHES, STEPS = (1, 3, 32), 6
"""Batch sizes that are compared, and the steps of each; an episode begins at the first and in the middle."""

Runner = Callable[[Arrays], Arrays]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A policy in another format."""

    path: Path
    inputs: tuple[str, ...]
    """In the file's order: `obs` (or `obs.NAME` of a Dict), `legal`, `first` and `memory.0` ... where the policy has them."""
    outputs: tuple[str, ...]
    """`action`, what the network said (`q`, `logits`, or `mean` and `log_std`), `memory_out.0` ..."""
    error: float
    """The largest difference from the policy that was found."""
    compared: int
    """Observations on which it was looked for."""


def export(policy: Policy | str | Path, *, to: str, out: str | Path | None = None) -> Exported:
    """Writes what the policy does without exploring as a function of named arrays, its batch of any size, and compares the two.

    `to` is `onnx` or `stablehlo`; `out` is left out where the policy comes from a file: `policy.onnx` beside it. Statistics of
    observations are inside. A recurrent policy takes `first` (where it is true the memory is cleared) and `memory.i`, and gives
    `memory_out.i`, to be handed back in the next step. The spaces stand as JSON in ONNX's metadata under `yozh`, and beside a
    StableHLO file in one of its name and `.json`; `jax.export.deserialize` reads the latter, and its `call` takes a dictionary.

    Raises `YozhError`, and writes nothing, where a format lacks an operation, takes another action than the policy, or differs
    from it by more than `TOLERANCE`.
    """
    require(to in _FORMATS, f"there is no format {to!r}; there are {', '.join(_FORMATS)}")
    out = _beside(policy, to) if out is None else Path(out)
    require(out.parent.is_dir(), f"there is no folder {out.parent} for {out.name}")
    policy = policy if isinstance(policy, Policy) else load(policy)
    cpu = jax.devices("cpu")[0]  # accelerators round products otherwise, and the copies run anywhere
    with jax.default_device(cpu):
        policy = Policy(policy.agent, jax.device_put(policy.params, cpu), policy.spec, policy.env)
        function = Function(policy)
        content, runner, about = _FORMATS[to](function, _about(policy, function))
        error, compared = compare(policy, function, runner)
    if about is not None:
        atomic_write(out.with_name(f"{out.name}.json"), json.dumps(about, indent=1))
    atomic_write(out, content)
    return Exported(out, tuple(function.inputs), function.outputs, error, compared)


def compare(policy: Policy, function: Function, runner: Runner) -> tuple[float, int]:
    """The largest difference between the two, and on how many observations; a `YozhError` where it is too large.

    Each sees the same random observations and its own memory; actions are those that the policy itself takes.
    """
    rng, worst, compared = np.random.default_rng(0), 0.0, 0
    native = jax.jit(function.__call__)
    for batch in BATCHES:
        memory = {n: rng.normal(size=(batch, *s.shape)).astype(s.dtype) for n, s in function.inputs.items() if n.startswith("memory.")}  # fmt: skip
        ours = theirs = memory  # what no episode began with: `first` has to clear it
        for t in range(STEPS):
            first = t % (STEPS // 2) == 0
            if first:
                policy.reset()
            obs = spaces.map_leaves(lambda s, batch=batch: _sample(rng, s, batch), policy.spec.observation)
            now = named("obs", obs)
            if policy.spec.legal:
                now["legal"] = _masks(rng, policy.spec.action, batch)
            action = named("action", policy(obs, now.get("legal")))
            if "first" in function.inputs:
                now["first"] = np.full(batch, first)
            expected = native({n: (now | ours)[n] for n in function.inputs}) | action
            found = runner({n: (now | theirs)[n] for n in function.inputs})
            worst = max(worst, *(_difference(n, np.asarray(expected[n]), np.asarray(found[n])) for n in expected))
            ours, theirs = ({n: np.asarray(x[n.replace(".", "_out.", 1)]) for n in memory} for x in (expected, found))
            compared += batch
    return worst, compared


def _difference(name: str, expected: np.ndarray, found: np.ndarray) -> float:
    same = found.shape == expected.shape and found.dtype == expected.dtype
    require(same, f"the exported {name} is {found.dtype}{found.shape}, not {expected.dtype}{expected.shape}")
    if not np.issubdtype(expected.dtype, np.floating):
        differ = int((found != expected).any(axis=tuple(range(1, found.ndim))).sum())
        require(not differ, f"the exported {name} differs from the policy's in {differ} of {len(found)} observations")
        return 0.0
    counts = expected != np.finfo(expected.dtype).min  # not what a mask forbids
    size = max(1.0, np.abs(expected[counts], dtype=np.float64).max(initial=0.0))
    error = float(np.where(found == expected, 0.0, np.abs(found - expected)).max() / size)
    require(
        error <= TOLERANCE, f"the exported {name} differs from the policy's by {error:.1e}, more than {TOLERANCE:.0e}"
    )
    return error


def _sample(rng: np.random.Generator, space: spaces.Leaf, batch: int) -> np.ndarray:
    """Random observations: uniform in the bounds, of a width of 20 where they are wide or open."""
    shape = (batch, *space.shape)
    match space:
        case spaces.Discrete(n):
            return rng.integers(0, n, shape).astype(space.dtype)
        case spaces.MultiDiscrete(ns):
            return rng.integers(0, ns, shape).astype(space.dtype)
        case spaces.MultiBinary():
            return rng.integers(0, 2, shape).astype(space.dtype)
    low, high = (np.asarray(b, np.float64) for b in space.bounds())
    low = np.where(low > -1e6, low, np.minimum(high - 20.0, -10.0))
    high = np.where(high < 1e6, high, low + 20.0)
    if np.issubdtype(space.dtype, np.floating):
        return rng.uniform(low, high, shape).astype(space.dtype)
    return rng.integers(low.astype(int), high.astype(int), shape, endpoint=True).astype(space.dtype)


def _masks(rng: np.random.Generator, space: spaces.Leaf, batch: int) -> np.ndarray:
    """Half of the actions legal, and one of them in any case."""
    mask = rng.random((batch, flat_size(space))) < 0.5
    mask[np.arange(batch), rng.integers(0, mask.shape[1], batch)] = True
    return mask


def _about(policy: Policy, function: Function) -> dict[str, Any]:
    structs = {name: [str(np.dtype(s.dtype)), ["batch", *s.shape]] for name, s in function.inputs.items()}
    agent = type(policy.agent).__name__
    return {"format": "yozh-export-1", "agent": agent, "env": policy.env, "spec": describe(policy.spec),
            "inputs": structs, "outputs": list(function.outputs)}  # fmt: skip


def _onnx(function: Function, about: dict[str, Any]) -> tuple[bytes, Runner, None]:
    try:
        import onnxruntime
        from jax2onnx import to_onnx
    except ImportError:
        raise YozhError("ONNX needs jax2onnx and onnxruntime: pip install 'yozh[export]'") from None
    with _named_in_errors("onnx"), _lenient():
        model = to_onnx(function.flat, list(function.structs("batch").values()), input_names=list(function.inputs),
                        output_names=list(function.outputs), model_name="policy")  # fmt: skip
    model.metadata_props.add(key="yozh", value=json.dumps(about))
    content = model.SerializeToString()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])

    def run(given: Arrays) -> Arrays:
        return dict(zip(function.outputs, session.run(list(function.outputs), given), strict=True))

    return content, run, None


@contextlib.contextmanager
def _named_in_errors(to: str) -> Iterator[None]:
    """Whatever a converter raises for an operation that it does not know."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        raise YozhError(f"this policy cannot be written as {to} ({reason})") from error


@contextlib.contextmanager
def _lenient() -> Iterator[None]:
    """JAX's usual promotion, which jax2onnx counts on, and none of its remarks on shapes."""
    log = logging.getLogger("onnx_ir")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            yield
    finally:
        log.setLevel(level)


def _stablehlo(function: Function, about: dict[str, Any]) -> tuple[bytes, Runner, dict[str, Any]]:
    from jax import export

    (batch,) = export.symbolic_shape("batch")
    platforms = ("cpu", "cuda")

    def policy(given: Arrays) -> Arrays:
        return function(given)

    with _named_in_errors("stablehlo"):
        content = bytes(export.export(jax.jit(policy), platforms=platforms)(function.structs(batch)).serialize())
    loaded = export.deserialize(bytearray(content))

    def run(given: Arrays) -> Any:
        return loaded.call(given)

    return content, run, about | {"platforms": platforms, "jax": jax.__version__}


_FORMATS = {"onnx": _onnx, "stablehlo": _stablehlo}


def _beside(policy: Policy | str | Path, to: str) -> Path:
    require(not isinstance(policy, Policy), "say where the policy goes: out='policy.onnx'")
    path = Path(policy)  # pyright: ignore[reportArgumentType]
    return path / f"policy.{to}" if path.is_dir() else path.with_suffix(f".{to}")
