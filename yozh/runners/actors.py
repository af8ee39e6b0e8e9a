"""Acting outside the compiled program: one actor a group of streams, in threads where they run beside learning."""

import functools
import queue
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, Key, PyTree

from yozh import spaces
from yozh.core import Agent, HostEnv, Spec, TimeStep
from yozh.runners.compiler import OPTIONS
from yozh.runners.rollout import unroll_keys

Acting = tuple[list[Any], Array]
"""Leaves of the parameters to act with, and how many updates made them."""

SWITCH = 2e-4
"""Seconds after which an acting thread lets another one have Python; the usual 5 ms are many turns of a small agent."""


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
    """Acts unroll after unroll; owns an environment, its streams' memory and the run's chain of keys, of which each `number` of
    actor draws its own branch."""

    def __init__(self, agent: Agent, env: HostEnv, step: TimeStep, memory: PyTree, params: PyTree, key: Key[Array, ""], number: int = 0):  # fmt: skip
        self.env, self.spec, self.length = env, env.spec, agent.experience.unroll
        self.agent, self.step, self.memory = (jax.tree.leaves(x) for x in (agent, step, memory))
        self.key, self.number = key, number
        self.shape = Shape(agent, params, memory, step)
        self.seconds = {"acting": 0.0, "environment": 0.0}

    def look(self, acting: Acting, keys: Key[Array, " T1"], i: int) -> tuple[Any, list[Any], list[Any]]:
        """What the environment is sent, leaves of `(step, action, extras)`, and the memory that follows."""
        sent, chosen, memory = _act(self.agent, acting[0], self.memory, self.step, keys, i, shape=self.shape, spec=self.spec)  # fmt: skip
        return sent, self.step + chosen, memory

    def unroll(self, acting: Acting) -> Acted:
        """Acts for T steps of every stream, and looks at the step where they stop."""
        began = time.perf_counter()
        key, learn_key, keys = chain(self.key, self.length, self.number)
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


class Crew:
    """Actors that together act for all streams.

    One alone without lag acts when it is asked to. Otherwise each has a thread, and unroll i is acted with the parameters
    that turn i-1-lag of learning handed on, whoever is quicker.
    """

    def __init__(self, actors: Sequence[Actor], lag: int):
        self.actors, self._lag = actors, lag
        self._threads: list[threading.Thread] = []

    def unroll(self, acting: Acting) -> Acted:
        """The next one. `acting` is what the latest turn handed on."""
        if len(self.actors) == 1 and self._lag == 0:
            return self.actors[0].unroll(acting)
        if not self._threads:
            self._start(acting)
        found = [taken.get() for taken in self._taken]
        for acted in found:
            if isinstance(acted, BaseException):
                self.close()
                raise acted
        return found[0] if len(found) == 1 else merged(found)

    def hand(self, acting: Acting) -> None:
        """Hands on what a turn of learning has made of the parameters."""
        if self._threads:
            for given in self._given:
                given.put(acting)

    @property
    def seconds(self) -> dict[str, float]:
        """Spent so far on acting and in the environment, by each actor on average."""
        return {k: sum(a.seconds[k] for a in self.actors) / len(self.actors) for k in self.actors[0].seconds}

    def close(self) -> None:
        """Ends the threads, as soon as their unrolls are done."""
        if not self._threads:
            return
        for given in self._given:
            given.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []
        sys.setswitchinterval(self._usual_switch)

    def _start(self, acting: Acting) -> None:
        self._usual_switch = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH)
        self._given: list[queue.Queue] = [queue.Queue() for _ in self.actors]
        self._taken: list[queue.Queue] = [queue.Queue() for _ in self.actors]
        for _ in range(self._lag + 1):
            for given in self._given:
                given.put(acting)
        for actor, given, taken in zip(self.actors, self._given, self._taken, strict=True):
            thread = threading.Thread(target=_act_ahead, args=(actor, given, taken), name="yozh-actor", daemon=True)
            self._threads.append(thread)
            thread.start()


def _act_ahead(actor: Actor, given: queue.Queue, taken: queue.Queue) -> None:
    try:
        while (acting := given.get()) is not None:
            taken.put(actor.unroll(acting))
    except BaseException as error:  # raised again where the unroll is waited for
        taken.put(error)


def merged(found: Sequence[Acted]) -> Acted:
    """The unrolls of several actors as one: the streams of the first, then those of the second ..."""

    def join(axis: int, *leaves: Any) -> np.ndarray:
        return np.concatenate([np.asarray(x) for x in leaves], axis)

    first = found[0]
    steps = [join(1, *leaves) for leaves in zip(*(a.steps for a in found), strict=True)]
    before, step, memory = (
        [join(0, *leaves) for leaves in zip(*(getattr(a, part) for a in found), strict=True)]
        for part in ("before", "step", "memory")
    )
    return Acted(steps, before, first.version, step, memory, first.key, first.learn_key)


@functools.partial(jax.jit, static_argnames=("length", "number"))
def chain(key: Key[Array, ""], length: int, number: int = 0) -> tuple[Array, Array, Array]:
    """The next turn's key, this turn's for learning, and those for acting, for actor 0 as `fused.turn` draws them."""
    key, act, learn_key = jax.random.split(key, 3)
    act = jax.random.fold_in(act, number) if number else act
    return key, learn_key, unroll_keys(act, length)


@functools.partial(jax.jit, static_argnames=("shape", "spec"), compiler_options=OPTIONS)
def _act(agent: list[Any], params: list[Any], memory: list[Any], step: list[Any], keys: Key[Array, " T1"], i: Any, *, shape: Shape, spec: Spec) -> tuple[Any, list[Any], list[Any]]:  # fmt: skip
    one, acting, remembered, seen = shape.build(agent, params, memory, step)
    action, extras, after = one.act(acting, remembered, seen, keys[i])
    return spaces.clip(spec.action, action), jax.tree.leaves((action, extras)), jax.tree.leaves(after)
