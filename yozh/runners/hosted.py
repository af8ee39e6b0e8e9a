"""Acting on environments that live outside the compiled program, in lock-step with learning."""

import functools
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from yozh import spaces
from yozh.core import Agent, HostEnv, TimeStep
from yozh.runners.compiler import OPTIONS
from yozh.runners.fused import Metrics, Run, begin, learn, summed
from yozh.runners.rollout import Sim, as_unroll, start, unroll_keys


class Hosted:
    """Runs an agent in a `HostEnv`: acting and learning are two compiled programs, the environment runs in between."""

    def __init__(self, agent: Agent, env: HostEnv):
        self.agent, self.env = agent, env

    def init(self, key: Key[Array, ""]) -> Run:
        key, learn_key, reset = jax.random.split(key, 3)
        first = jax.tree.map(jnp.asarray, self.env.reset(int(jax.random.randint(reset, (), 0, 2**31 - 1))))
        return _begin(self.agent, self.env.spec, first, learn_key, key)

    def compile(self, run: Run) -> float:
        """Seconds spent on building the programs, by running them on the run's own shapes."""
        began = time.perf_counter()
        step, sim = run.sim.step, run.sim
        action, extras, _ = _act(self.agent, run.state, sim.memory, step, run.key)
        steps = _stack([(step, action, extras)] * (self.agent.experience.unroll + 1))
        jax.block_until_ready(_learn(self.agent, jax.tree.map(jnp.copy, run), sim, steps, run.key, run.key))
        return time.perf_counter() - began

    def advance(self, run: Run, n: int) -> tuple[Run, Metrics]:
        """`n` turns of acting and learning. `run` is used up."""
        total = None
        for _ in range(n):
            run, metrics = self._turn(run)
            total = metrics if total is None else jax.tree.map(jnp.add, total, metrics)
        assert total is not None, "n must be positive"
        return run, summed(total)

    def _turn(self, run: Run) -> tuple[Run, Metrics]:
        key, act, learn_key = jax.random.split(run.key, 3)
        keys = unroll_keys(act, self.agent.experience.unroll)
        step, memory, steps = run.sim.step, run.sim.memory, []
        for i in range(self.agent.experience.unroll):
            action, extras, memory = _act(self.agent, run.state, memory, step, keys[i])
            self.env.send(jax.tree.map(np.asarray, spaces.clip(self.env.spec.action, action)))
            steps.append((step, action, extras))
            step = jax.tree.map(jnp.asarray, self.env.recv())
        action, extras, _ = _act(self.agent, run.state, memory, step, keys[-1])
        steps = _stack([*steps, (step, action, extras)])
        sim = Sim((), step, memory, run.sim.returns, run.sim.lengths)
        return _learn(self.agent, run, sim, steps, key, learn_key)


def _stack(steps: list[tuple[TimeStep, PyTree, PyTree]]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *steps)


@eqx.filter_jit
def _begin(agent: Agent, spec: Any, step: TimeStep, learn_key: Key[Array, ""], key: Key[Array, ""]) -> Run:
    state = agent.init(learn_key, spec)
    sim = start((), step, agent.initial_memory(agent.policy(state), step.reward.shape[0]))

    def example() -> Any:
        action, extras, _ = agent.act(agent.policy(state), sim.memory, step, key)
        steps = [(step, action, extras)] * (agent.experience.unroll + 1)
        return as_unroll(_stack(steps), sim.memory, jnp.zeros((), jnp.int32))

    return begin(agent, state, sim, jax.eval_shape(example), key)


@functools.partial(jax.jit, compiler_options=OPTIONS)
def _act(agent: Agent, state: PyTree, memory: PyTree, step: TimeStep, key: Key[Array, ""]) -> tuple[PyTree, PyTree, PyTree]:  # fmt: skip
    return agent.act(agent.policy(state), memory, step, key)


@functools.partial(jax.jit, compiler_options=OPTIONS)
def _learn(agent: Agent, run: Run, sim: Sim, steps: Any, key: Key[Array, ""], learn_key: Key[Array, ""]) -> tuple[Run, Metrics]:  # fmt: skip
    unroll = as_unroll(steps, run.sim.memory, run.state.counts.updates)
    return learn(agent, run, sim, unroll, key, learn_key)
