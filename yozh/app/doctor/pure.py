"""A pure environment: what it is in a trace, before it is compiled and run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from yozh import spaces
from yozh.app.doctor import speed, streams
from yozh.app.doctor.findings import Findings
from yozh.app.doctor.patience import Broken, GivenUp, Hung, Patience
from yozh.core import Env, Spec, TimeStep
from yozh.environments.batched import Vectorised
from yozh.environments.declared import fields
from yozh.environments.host import AsHost

TRACING = 60.0
"""Seconds that the tracing of one function may take."""

SCALARS = {"reward": "float32", "discount": "float32", "first": "bool", "last": "bool"}


def examine(env: Env, findings: Findings, *, steps: int, envs: int, seed: int) -> str:
    """Tells all that is wrong with an environment; returns what was looked at, in words."""
    try:
        spec = _contract(env, findings)
    except GivenUp:
        return "nothing could be run"
    vector = Vectorised(env, envs)
    limit = getattr(env, "limit", None)
    told = streams.examine(AsHost(vector), findings, steps=steps, seed=seed, about=env, limit=limit if isinstance(limit, int) else None)  # fmt: skip
    if not findings.any("error"):
        speed.pure(vector, findings)
    assert isinstance(spec, Spec)
    return told


def _contract(env: Env, findings: Findings) -> Spec:
    patience = Patience()
    spec = _traced(patience, findings, "spec", lambda: env.spec)
    if not isinstance(spec, Spec):
        findings.add("error", "kind", "spec", f"is {spec!r:.60}", "return Spec(observation, action)")
        raise GivenUp
    key = jax.random.key(0)
    action = jax.tree.map(jnp.asarray, spaces.zeros(spec.action))
    opened = _pair(findings, "reset", _traced(patience, findings, "reset", lambda: jax.eval_shape(env.reset, key)))
    _fits(findings, "reset", opened[1], spec)
    moved = _pair(findings, "step", _traced(patience, findings, "step", lambda: jax.eval_shape(env.step, opened[0], action, key)))  # fmt: skip
    _fits(findings, "step", moved[1], spec)
    _stable(findings, "state", opened[0], moved[0])
    _stable(findings, "extras", opened[1].extras, moved[1].extras)
    state = _traced(patience, findings, "reset", lambda: env.reset(key))[0]
    for name, f, operands in (("reset", env.reset, (key,)), ("step", env.step, (state, action, key))):
        one, two = (_traced(patience, findings, name, lambda f=f, x=operands: _program(f, x)) for _ in range(2))
        if one != two:
            findings.add("error", "frozen", name, "makes another program each time it is traced: it draws numbers outside JAX, which are frozen when it is compiled",
                         "use jax.random with the key, not numpy.random, random or time")  # fmt: skip
    if findings.any("error"):
        raise GivenUp
    return spec


def _traced(patience: Patience, findings: Findings, name: str, f: Callable[[], Any]) -> Any:
    try:
        return patience(f, limit=TRACING)
    except Broken as broken:
        findings.add("error", "raised", name, *_in_plain_words(broken))
    except Hung:
        findings.add(
            "error", "hung", name, f"could not be traced within {TRACING:g} s", "look for a loop that never ends"
        )
    raise GivenUp


def _in_plain_words(broken: Broken) -> tuple[str, str]:
    """What a tracing error means, and what to do."""
    place = str(broken)[str(broken).rfind(" (") :] if str(broken).endswith(")") else ""
    match broken.error:
        case jax.errors.TracerBoolConversionError():
            return f"branches in Python on a value that is known only when the program runs{place}", "use jnp.where or jax.lax.cond"  # fmt: skip
        case jax.errors.TracerIntegerConversionError() | jax.errors.NonConcreteBooleanIndexError():
            return f"indexes or shapes by a value that is known only when the program runs{place}", "use jnp.where, or index a jax array"  # fmt: skip
        case jax.errors.TracerArrayConversionError():
            return f"hands a traced value to NumPy{place}", "use jax.numpy"
        case jax.errors.ConcretizationTypeError():
            return f"makes a Python number of a value that is known only when the program runs{place}", "keep it a jax array: no int(), float() or .item()"  # fmt: skip
        case jax.errors.UnexpectedTracerError():
            return f"keeps a traced value beyond the call{place}", "return all that is to be remembered in the state"
    return f"raised {broken}", "mend what raises"


def _pair(findings: Findings, name: str, told: Any) -> tuple[PyTree, TimeStep]:
    if isinstance(told, tuple) and len(told) == 2 and isinstance(told[1], TimeStep):
        return told
    kind = f"a tuple of {len(told)}" if isinstance(told, tuple) else type(told).__name__
    maker = "restart(obs)" if name == "reset" else "transition(obs, reward, terminated=...)"
    findings.add("error", "tuple", name, f"returned {kind}, not a state and a TimeStep", f"return state, {maker}")
    raise GivenUp


def _fits(findings: Findings, name: str, step: TimeStep, spec: Spec) -> None:
    """Holds the shapes and types of a traced step to the spec."""
    declared, told = jax.tree.structure(spaces.zeros(spec.observation)), jax.tree.structure(step.obs)
    if declared != told:
        findings.add("error", "fit", f"observation of {name}", f"is {told}, and {declared} is declared", "return what spec declares")  # fmt: skip
        raise GivenUp
    expected = [(f.name, f.shape, f.dtype.name, x) for f, x in zip(fields(spec.observation), jax.tree.leaves(step.obs), strict=True)]  # fmt: skip
    expected += [(field, (), dtype, getattr(step, field)) for field, dtype in SCALARS.items()]
    for field, shape, dtype, x in expected:
        where = f"{field} of {name}"
        if jnp.shape(x) != shape:
            findings.add("error", "shape", where, f"has shape {jnp.shape(x)}, and {shape} is declared", "return one stream, without a batch axis")  # fmt: skip
        elif jnp.result_type(x) != dtype:
            findings.add("error", "dtype", where, f"is {jnp.result_type(x)}, and {dtype} is declared", f"return it as jnp.{dtype}")  # fmt: skip
        elif getattr(x, "weak_type", False):
            findings.add("warning", "weak", where, f"is a weakly typed {dtype}, as a Python number is", f"write jnp.asarray(x, jnp.{dtype})")  # fmt: skip
    if spec.legal != ("legal" in step.extras):
        what = "spec.legal is set, and extras hold no `legal`" if spec.legal else "extras hold `legal`, and spec.legal is not set: nobody looks at it"  # fmt: skip
        findings.add("error", "legal", f"extras of {name}", what, "make both say the same")


def _stable(findings: Findings, name: str, one: PyTree, two: PyTree) -> None:
    """What `reset` and `step` both return must be of the same kind, or no loop can carry it."""
    if jax.tree.structure(one) != jax.tree.structure(two):
        findings.add("error", "structure", name, f"is {jax.tree.structure(one)} after reset and {jax.tree.structure(two)} after step", "return the same structure")  # fmt: skip
        return
    pairs = zip(jax.tree.leaves_with_path(one), jax.tree.leaves(two), strict=True)
    for (path, a), b in pairs:
        where = name + jax.tree_util.keystr(path)
        kinds = [f"{jnp.result_type(x)}{list(jnp.shape(x))}" for x in (a, b)]
        if kinds[0] != kinds[1]:
            findings.add("error", "kind", where, f"is {kinds[0]} after reset and {kinds[1]} after step", "return the same type and shape from both")  # fmt: skip
        elif any(getattr(x, "weak_type", False) for x in (a, b)):
            findings.add("warning", "weak", where, "is weakly typed, as a Python number is", f"write jnp.asarray(x, jnp.{jnp.result_type(a)})")  # fmt: skip


def _program(f: Callable[..., Any], operands: tuple[Any, ...]) -> tuple[str, list[bytes]]:
    """The program that a function makes, and its constants, in a form to be compared."""
    closed = jax.make_jaxpr(lambda *x: f(*x))(*operands)
    return str(closed.jaxpr), [np.asarray(c).tobytes() for c in closed.consts if not jnp.issubdtype(c.dtype, jax.dtypes.prng_key)]  # fmt: skip
