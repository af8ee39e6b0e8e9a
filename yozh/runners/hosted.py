"""Acting on environments that live outside the compiled program, in turns with learning or ahead of it."""

import functools
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree

from yozh import spaces
from yozh.core import Agent, HostEnv, Spec, TimeStep, Unroll, require
from yozh.runners import fused
from yozh.runners.compiler import OPTIONS
from yozh.runners.fused import Metrics, Run, begin, summed
from yozh.runners.memory import HostMemory, for_host
from yozh.runners.rollout import Sim, as_unroll, start, unroll_keys

Acting = tuple[list[Any], Array]
"""Leaves of the parameters to act with, and how many updates made them."""

SWITCH = 2e-4
"""Seconds after which the acting thread lets the learner have Python; the usual 5 ms are many turns of a small agent."""


class Shape:
    """The structure of a pytree as a static argument: equal to itself at once, to others by comparison.

    Arguments of the programs below are flat lists, since taking modules apart on every call costs more than acting does.
    """

    def __init__(self, *trees: PyTree):
        self.trees = tuple(jax.tree.structure(tree) for tree in trees)

    def __hash__(self) -> int:
        return len(self.trees)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Shape) and self.trees == other.trees)

    def build(self, *leaves: list[Any]) -> list[Any]:
        return [jax.tree.unflatten(tree, x) for tree, x in zip(self.trees, leaves, strict=True)]


class Acted(NamedTuple):
    """One unroll, and where it left the streams; modules as lists of their leaves."""

    steps: list[np.ndarray]
    """Of `(step, action, extras)`, `[T+1, B, ...]`."""
    before: list[Any]
    """Of the memory before step 0."""
    version: Int[Array, ""]
    step: list[Any]
    memory: list[Any]
    key: Key[Array, ""]
    learn_key: Key[Array, ""]


class Actor:
    """Acts unroll after unroll; owns the environment, its streams' memory and the run's chain of keys."""

    def __init__(self, agent: Agent, env: HostEnv, step: TimeStep, memory: PyTree, params: PyTree, key: Key[Array, ""]):
        self.env, self.spec, self.length = env, env.spec, agent.experience.unroll
        self.agent, self.step, self.memory = (jax.tree.leaves(x) for x in (agent, step, memory))
        self.key = key
        self.shape = Shape(agent, params, memory, step)
        self.seconds = {"acting": 0.0, "environment": 0.0}

    def look(self, acting: Acting, keys: Key[Array, " T1"], i: int) -> tuple[Any, list[Any], list[Any]]:
        """What the environment is sent, leaves of `(step, action, extras)`, and the memory that follows."""
        sent, chosen, memory = _act(self.agent, acting[0], self.memory, self.step, keys, i, shape=self.shape, spec=self.spec)  # fmt: skip
        return sent, self.step + chosen, memory

    def unroll(self, acting: Acting) -> Acted:
        """Acts for T steps of every stream, and looks at the step where they stop."""
        began = time.perf_counter()
        key, learn_key, keys = _keys(self.key, self.length)
        before, steps = self.memory, []
        for i in range(self.length + 1):
            sent, seen, memory = self.look(acting, keys, i)
            steps = steps or [np.empty((self.length + 1, *x.shape), x.dtype) for x in seen]
            for row, x in zip(steps, seen, strict=True):
                row[i] = x
            if i < self.length:
                self.memory, sent, acted = memory, jax.tree.map(np.asarray, sent), time.perf_counter()
                self.env.send(sent)
                self.step = jax.tree.leaves(self.env.recv())
                stepped = time.perf_counter()
                self.seconds["acting"] += acted - began
                self.seconds["environment"] += stepped - acted
                began = stepped
        self.seconds["acting"] += time.perf_counter() - began
        self.key = key
        return Acted(steps, before, acting[1], self.step, self.memory, key, learn_key)


class Hosted:
    """Runs an agent in a `HostEnv`: acting and learning are two compiled programs, the environment runs in between.

    With `lag` 0 they take turns, as in `Fused` and bit for bit like it. With `lag` L a thread acts ahead, and unroll i is
    acted with the parameters that turn i-1-L of learning left behind: acting and learning overlap, the lag is known, and
    nothing depends on a race.
    """

    def __init__(self, agent: Agent, env: HostEnv, lag: int = 0):
        name, allowed = type(agent).__name__.lower(), agent.experience.max_lag
        require(lag >= 0, f"lag must not be negative, but is {lag}")
        require(lag <= allowed, f"{name} allows a lag of {allowed}, not {lag}: " + _reason(allowed))
        self.agent, self.env, self.lag = agent, env, lag
        replay = for_host(agent, env.spec)
        self.memory = None if replay is None else HostMemory(agent, replay)
        self._thread: threading.Thread | None = None

    def init(self, key: Key[Array, ""]) -> Run:
        key, learn_key, reset = jax.random.split(key, 3)
        first = self.env.reset(_seed(reset))
        seen = jax.tree.map(jnp.asarray, first)
        return self._open(_begin(self.agent, self.env.spec, seen, learn_key, key, self.memory is not None), first)

    def outline(self) -> Run:
        """The shapes of a run, nothing allocated."""
        first, key = jax.tree.map(jnp.asarray, self.env.reset(0)), jax.random.key(0)
        return eqx.filter_eval_shape(_begin, self.agent, self.env.spec, first, key, key, self.memory is not None)

    def reopen(self, run: Run, *, anew: bool = True) -> Run:
        """The run with its streams at the start of new episodes, `anew` or not: a simulator cannot be saved."""
        self.close()
        first = self.env.reset(_seed(jax.random.fold_in(run.key, 1)))
        if self.memory is not None and self.memory.shaped:
            self.memory.replay.sever()
        return self._open(_reopen(self.agent, run, jax.tree.map(jnp.asarray, first)), first)

    def _open(self, run: Run, first: TimeStep) -> Run:
        self._actor = Actor(self.agent, self.env, first, run.sim.memory, self.agent.policy(run.state), run.key)
        self._acting = jax.tree.map(jnp.copy, _acting(self.agent, run.state))  # the run itself is used up
        self._learner = {"learning": 0.0, "waiting": 0.0}
        unroll = jax.eval_shape(lambda: _example(self.agent, run.state, run.sim, run.key))
        self._steps = jax.tree.structure((unroll.step, unroll.action, unroll.extras))
        if self.memory is not None and not self.memory.shaped:
            self.memory.init(run, unroll)
        return run

    def save_memory(self, folder: Path) -> dict[str, Any] | None:
        """Writes the replay that lives outside the run, if there is one; returns what `restore_memory` needs, as plain data."""
        return None if self.memory is None else self.memory.replay.save(folder)

    def restore_memory(self, folder: Path, about: dict[str, Any] | None) -> None:
        """Takes in what `save_memory` wrote, after `reopen`."""
        if self.memory is not None:
            require(about is not None, f"{folder} holds no replay")
            self.memory.replay.restore(folder, about)
            self.memory.replay.sever()

    def compile(self, run: Run) -> float:
        """Seconds spent on building the programs, by running them on the run's own shapes."""
        began, actor = time.perf_counter(), self._actor
        key, learn_key, keys = _keys(run.key, actor.length)
        _, seen, memory = actor.look(self._acting, keys, 0)
        steps = [np.stack([x] * (actor.length + 1)) for x in seen]
        acted = Acted(steps, actor.memory, self._acting[1], actor.step, memory, key, learn_key)
        self._learn(jax.tree.leaves(jax.tree.map(jnp.copy, run)), Shape(run), acted)
        return time.perf_counter() - began

    def advance(self, run: Run, n: int) -> tuple[Run, Metrics]:
        """`n` turns of acting and learning. `run` is used up."""
        total, leaves, shape = None, jax.tree.leaves(run), Shape(run)
        for _ in range(n):
            acted, began = self._next(), time.perf_counter()
            leaves, metrics, self._acting = self._learn(leaves, shape, acted)
            self._learner["learning"] += time.perf_counter() - began
            if self._thread is not None:
                self._given.put(self._acting)
            total = metrics if total is None else jax.tree.map(np.add, total, metrics)
        assert total is not None, "n must be positive"
        (run,) = shape.build(leaves)
        return run, summed(jax.tree.map(np.asarray, total))

    @property
    def seconds(self) -> dict[str, float]:
        """Spent so far on acting, in the environment, on learning, and by the learner on waiting for an unroll."""
        return self._actor.seconds | self._learner

    def close(self) -> None:
        """Ends the acting thread, as soon as its unroll is done."""
        if self._thread is not None:
            self._given.put(None)
            self._thread.join()
            self._thread = None
            sys.setswitchinterval(self._usual_switch)

    def _learn(self, run: list[Any], shape: Shape, acted: Acted) -> tuple[list[Any], Metrics, Acting]:
        """What `fused.learn` makes of an unroll: the run, its metrics, and what to act with next."""
        actor = self._actor
        if self.memory is None:
            return jax.block_until_ready(_learn(run, actor.agent, list(acted), run_shape=shape, shape=actor.shape))
        (was,) = shape.build(run)
        sim, unroll = _arrived(was, acted.steps, acted.before, acted.version, acted.step, acted.memory, self._steps, actor.shape)  # fmt: skip
        now, metrics = self.memory.learn(was, sim, unroll, acted.key, acted.learn_key)
        return jax.tree.leaves(now), metrics, _acting(self.agent, now.state)

    def _next(self) -> Acted:
        if self.lag == 0:
            return self._actor.unroll(self._acting)
        began = time.perf_counter()
        if self._thread is None:
            self._given, self._taken = queue.Queue(), queue.Queue()
            for _ in range(self.lag + 1):
                self._given.put(self._acting)
            self._usual_switch = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH)
            self._thread = threading.Thread(target=self._act_ahead, name="yozh-actor", daemon=True)
            self._thread.start()
        acted = self._taken.get()
        self._learner["waiting"] += time.perf_counter() - began
        if isinstance(acted, BaseException):
            self.close()
            raise acted
        return acted

    def _act_ahead(self) -> None:
        try:
            while (acting := self._given.get()) is not None:
                self._taken.put(self._actor.unroll(acting))
        except BaseException as error:  # raised again where the unroll is waited for
            self._taken.put(error)


def _reason(allowed: int) -> str:
    return (
        "it learns only from what its present parameters did" if allowed == 0 else "its correction reaches no further"
    )


def _seed(key: Key[Array, ""]) -> int:
    return int(jax.random.randint(key, (), 0, 2**31 - 1))


@eqx.filter_jit
def _begin(agent: Agent, spec: Spec, step: TimeStep, learn_key: Key[Array, ""], key: Key[Array, ""], elsewhere: bool) -> Run:  # fmt: skip
    """A run before its first step, without a store if unrolls are kept `elsewhere`."""
    state = agent.init(learn_key, spec)
    sim = _start(agent, state, step)
    return begin(
        agent, state, sim, None if elsewhere else jax.eval_shape(lambda: _example(agent, state, sim, key)), key
    )


def _example(agent: Agent, state: PyTree, sim: Sim, key: Key[Array, ""]) -> Unroll:
    """An unroll of the run's shapes."""
    action, extras, _ = agent.act(agent.policy(state), sim.memory, sim.step, key)
    steps = jax.tree.map(lambda x: jnp.stack([x] * (agent.experience.unroll + 1)), (sim.step, action, extras))
    return as_unroll(steps, sim.memory, jnp.zeros((), jnp.int32))


@eqx.filter_jit
def _reopen(agent: Agent, run: Run, step: TimeStep) -> Run:
    store = agent.experience.store.sever(run.store) if jax.tree.leaves(run.store) else run.store
    return Run(run.state, _start(agent, run.state, step), store, run.key, run.fault)


def _start(agent: Agent, state: PyTree, step: TimeStep) -> Sim:
    return start((), step, agent.initial_memory(agent.policy(state), step.reward.shape[0]))


@functools.partial(jax.jit, static_argnames="length")
def _keys(key: Key[Array, ""], length: int) -> tuple[Array, Array, Array]:
    """The next turn's key, this turn's for learning, and those for acting, as `fused.turn` draws them."""
    key, act, learn_key = jax.random.split(key, 3)
    return key, learn_key, unroll_keys(act, length)


@functools.partial(jax.jit, static_argnames=("shape", "spec"), compiler_options=OPTIONS)
def _act(agent: list[Any], params: list[Any], memory: list[Any], step: list[Any], keys: Key[Array, " T1"], i: Any, *, shape: Shape, spec: Spec) -> tuple[Any, list[Any], list[Any]]:  # fmt: skip
    one, acting, remembered, seen = shape.build(agent, params, memory, step)
    action, extras, after = one.act(acting, remembered, seen, keys[i])
    return spaces.clip(spec.action, action), jax.tree.leaves((action, extras)), jax.tree.leaves(after)


@functools.partial(jax.jit, static_argnames=("run_shape", "shape"), donate_argnums=0, compiler_options=OPTIONS)
def _learn(run: list[Any], agent: list[Any], acted: list[Any], *, run_shape: Shape, shape: Shape) -> tuple[list[Any], Metrics, Acting]:  # fmt: skip
    (was,), one = run_shape.build(run), jax.tree.unflatten(shape.trees[0], agent)
    *unrolled, key, learn_key = acted
    example = jax.eval_shape(lambda: _example(one, was.state, was.sim, key))
    steps = jax.tree.structure((example.step, example.action, example.extras))
    sim, unroll = _arrived(was, *unrolled, steps, shape)
    now, metrics = fused.learn(one, was, sim, unroll, key, learn_key)
    return jax.tree.leaves(now), metrics, _acting(one, now.state)


def _arrived(run: Run, steps: list[Any], before: list[Any], version: Int[Array, ""], step: list[Any], memory: list[Any], steps_tree: Any, shape: Shape) -> tuple[Sim, Unroll]:  # fmt: skip
    """What an actor has acted, as modules again."""
    _, _, memory_tree, step_tree = shape.trees
    before, memory = (jax.tree.unflatten(memory_tree, x) for x in (before, memory))
    sim = Sim((), jax.tree.unflatten(step_tree, step), memory, run.sim.returns, run.sim.lengths)
    return sim, as_unroll(jax.tree.unflatten(steps_tree, steps), before, version)


def _acting(agent: Agent, state: PyTree) -> Acting:
    return jax.tree.leaves(agent.policy(state)), state.counts.updates
