"""Learning from a replay in the host's memory: what `fused.learn` does in one program, in pieces around it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key, PyTree

from yozh import spaces
from yozh.core import Agent, Report, Spec, Unroll
from yozh.runners import fused
from yozh.runners.compiler import OPTIONS
from yozh.runners.fused import Fault, Metrics, Run
from yozh.runners.rollout import Sim, Tally
from yozh.stores import HostReplay, PrioritisedReplay, Replay, guess_stack

LARGE = 2**28
"""Bytes of images from which on a replay lives in the host's memory, single frames for stacks."""


def for_host(agent: Agent, spec: Spec) -> HostReplay | None:
    """The replay that this agent's images ask for, or `None` where its own will do."""
    store, seen = agent.experience.store, spaces.zeros(spec.observation)
    images = [x for x in jax.tree.leaves(seen) if x.dtype == np.uint8 and x.ndim == 3]
    if not isinstance(store, Replay | PrioritisedReplay) or store.capacity * sum(x.size for x in images) < LARGE:
        return None
    chances = store if isinstance(store, PrioritisedReplay) else None
    return HostReplay(store.capacity, store.batch, store.window, stack=guess_stack(spec.observation), chances=chances)


class HostMemory:
    """An agent that learns from a `HostReplay`."""

    def __init__(self, agent: Agent, replay: HostReplay):
        self.agent, self.replay, self.shaped = agent, replay, False

    def init(self, run: Run, example: Unroll) -> None:
        """Shapes the replay; `example` has the shapes of the run's unrolls."""
        self.replay.init(example)
        self.shaped = True
        store = self.agent.experience.store

        def report() -> Report:
            batch, _ = store.sample(store.init(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example)), run.key)
            return self.agent.learn(run.state, batch, run.key)[1]

        self._metrics = list(jax.eval_shape(report).metrics)

    def learn(self, run: Run, sim: Sim, unroll: Unroll, key: Key[Array, ""], learn_key: Key[Array, ""]) -> tuple[Run, Metrics]:  # fmt: skip
        """As `fused.learn`. `run.store` is empty, `unroll` of NumPy arrays."""
        agent, replay = self.agent, self.replay
        sim, ended, fault, due = _arrive(agent, run, sim, unroll)
        replay.add(jax.tree.map(np.asarray, unroll))
        state, finite, total = run.state, True, dict.fromkeys(self._metrics, np.float32(0.0))
        updates = agent.experience.updates if due and replay.ready() else 0
        for i in range(updates):
            draw, step = _keys(learn_key, i)
            batch, handle = replay.sample(draw)
            state, report = _update(agent, state, batch, step)
            replay.feedback(handle, report.priority)
            finite, total = (
                finite and bool(report.finite),
                {k: total[k] + np.asarray(v) for k, v in report.metrics.items()},
            )
        run = _depart(agent, run, state, sim, key, fault, unroll, jnp.asarray(finite))
        return run, Metrics(ended, jax.tree.map(np.asarray, total), np.asarray(updates, np.int32))


@functools.partial(jax.jit, compiler_options=OPTIONS)
def _arrive(agent: Agent, run: Run, sim: Sim, unroll: Unroll) -> tuple[Sim, Tally, Fault, Bool[Array, ""]]:
    sim, ended, fault = fused.arrive(run, sim, unroll)
    return sim, ended, fault, fused.is_due(agent, run, fault)


@jax.jit
def _keys(learn_key: Key[Array, ""], i: Any) -> tuple[Array, Array]:
    return fused.update_keys(learn_key, i)


@functools.partial(jax.jit, compiler_options=OPTIONS)
def _update(agent: Agent, state: PyTree, batch: Unroll, key: Key[Array, ""]) -> tuple[PyTree, Report]:
    return agent.learn(state, batch, key)


@functools.partial(jax.jit, compiler_options=OPTIONS)
def _depart(agent: Agent, run: Run, state: PyTree, sim: Sim, key: Key[Array, ""], fault: Fault, unroll: Unroll, finite: Bool[Array, ""]) -> Run:  # fmt: skip
    return fused.depart(agent, run, state, sim, (), key, fault, unroll, finite)
