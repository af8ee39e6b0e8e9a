"""Acting on environments that live outside the compiled program, in turns with learning or ahead of it."""

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from yozh.core import Agent, HostEnv, Spec, TimeStep, Unroll, require
from yozh.runners import fused
from yozh.runners.actors import Acted, Acting, Actor, Crew, Shape, chain, merged
from yozh.runners.compiler import OPTIONS
from yozh.runners.fused import Metrics, Run, begin, summed
from yozh.runners.memory import HostMemory, for_host
from yozh.runners.rollout import Sim, as_unroll, start


class Hosted:
    """Runs an agent in a `HostEnv`: acting and learning are two compiled programs, the environment runs in between.

    With `lag` 0 they take turns, as in `Fused` and bit for bit like it. With `lag` L a thread acts ahead, and unroll i is
    acted with the parameters that turn i-1-L of learning left behind: acting and learning overlap, the lag is known, and
    nothing depends on a race. Several environments of equal spaces share the streams, and have an actor and a thread each: one
    is acted for while another one steps.
    """

    def __init__(self, agent: Agent, env: HostEnv | Sequence[HostEnv], lag: int = 0):
        name, allowed = type(agent).__name__.lower(), agent.experience.max_lag
        require(lag >= 0, f"lag must not be negative, but is {lag}")
        require(lag <= allowed, f"{name} allows a lag of {allowed}, not {lag}: " + _reason(allowed))
        self.envs = list(env) if isinstance(env, Sequence) else [env]
        self.agent, self.spec, self.lag = agent, self.envs[0].spec, lag
        replay = for_host(agent, self.spec)
        self.memory = None if replay is None else HostMemory(agent, replay)
        self._crew: Crew | None = None
        self._failure: Exception | None = None

    def init(self, key: Key[Array, ""]) -> Run:
        key, learn_key, reset = jax.random.split(key, 3)
        opened = self._reset(reset)
        return self._open(
            _begin(self.agent, self.spec, _joined(opened), learn_key, key, self.memory is not None), opened
        )

    def outline(self) -> Run:
        """The shapes of a run, nothing allocated."""
        key = jax.random.key(0)
        return eqx.filter_eval_shape(_begin, self.agent, self.spec, _joined(self._reset(key)), key, key, self.memory is not None)  # fmt: skip

    def reopen(self, run: Run, *, anew: bool = True) -> Run:
        """The run with its streams at the start of new episodes, `anew` or not: a simulator cannot be saved."""
        self.close()
        opened = self._reset(jax.random.fold_in(run.key, 1))
        if self.memory is not None and self.memory.shaped:
            self.memory.replay.sever()
        return self._open(_reopen(self.agent, run, _joined(opened)), opened)

    def _reset(self, key: Key[Array, ""]) -> list[TimeStep]:
        seed = int(jax.random.randint(key, (), 0, 2**30))
        firsts = np.cumsum([0, *(env.batch for env in self.envs)])
        return [env.reset(seed + int(first)) for env, first in zip(self.envs, firsts, strict=False)]

    def _open(self, run: Run, opened: list[TimeStep]) -> Run:
        params, actors, first = self.agent.poised(self.agent.policy(run.state)), [], 0
        for number, (env, step) in enumerate(zip(self.envs, opened, strict=True)):
            memory = jax.tree.map(lambda x, a=first, b=first + env.batch: x[a:b], run.sim.memory)
            actors.append(Actor(self.agent, env, step, memory, params, run.key, number))
            first += env.batch
        self._crew = Crew(actors, self.lag)
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
        began, found = time.perf_counter(), []
        for actor in self._acting_crew.actors:
            key, learn_key, keys = chain(run.key, actor.length, actor.number)
            _, seen, memory = actor.look(self._acting, keys, 0)
            steps = [np.stack([x] * (actor.length + 1)) for x in seen]
            found.append(Acted(steps, actor.memory, self._acting[1], actor.step, memory, key, learn_key))
        acted = found[0] if len(found) == 1 else merged(found)
        self._learn(jax.tree.leaves(jax.tree.map(jnp.copy, run)), Shape(run), acted)
        return time.perf_counter() - began

    def advance(self, run: Run, n: int) -> tuple[Run, Metrics]:
        """`n` turns of acting and learning, fewer if acting fails: the next call then raises the error. `run` is used up, unless
        this call raises."""
        if self._failure is not None:
            raise self._failure
        total, leaves, shape = None, jax.tree.leaves(run), Shape(run)
        for _ in range(n):
            asked = time.perf_counter()
            try:
                acted, began = self._acting_crew.unroll(self._acting), time.perf_counter()
            except Exception as error:
                if total is None:
                    raise
                self._failure = error
                break
            leaves, metrics, self._acting = self._learn(leaves, shape, acted)
            self._acting_crew.hand(self._acting)
            self._learner["waiting"] += began - asked if self.lag else 0.0
            self._learner["learning"] += time.perf_counter() - began
            total = metrics if total is None else jax.tree.map(np.add, total, metrics)
        assert total is not None, "n must be positive"
        (run,) = shape.build(leaves)
        return run, summed(jax.tree.map(np.asarray, total))

    @property
    def _acting_crew(self) -> Crew:
        assert self._crew is not None, "init comes first"
        return self._crew

    @property
    def seconds(self) -> dict[str, float]:
        """Spent so far on acting, in the environment, on learning, and by the learner on waiting for an unroll."""
        return self._acting_crew.seconds | self._learner

    def close(self) -> None:
        """Ends the acting threads, as soon as their unrolls are done."""
        if self._crew is not None:
            self._crew.close()

    def _learn(self, run: list[Any], shape: Shape, acted: Acted) -> tuple[list[Any], Metrics, Acting]:
        """What `fused.learn` makes of an unroll: the run, its metrics, and what to act with next."""
        actor = self._acting_crew.actors[0]
        if self.memory is None:
            return jax.block_until_ready(_learn(run, actor.agent, list(acted), run_shape=shape, shape=actor.shape))
        (was,) = shape.build(run)
        sim, unroll = _arrived(was, acted, self._steps, actor.shape)
        now, metrics = self.memory.learn(was, sim, unroll, acted.key, acted.learn_key)
        return jax.tree.leaves(now), metrics, _acting(self.agent, now.state)


def _reason(allowed: int) -> str:
    return (
        "it learns only from what its present parameters did" if allowed == 0 else "its correction reaches no further"
    )


def _joined(steps: list[TimeStep]) -> TimeStep:
    return jax.tree.map(lambda *x: jnp.concatenate([jnp.asarray(y) for y in x]), *steps)


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


@functools.partial(jax.jit, static_argnames=("run_shape", "shape"), donate_argnums=0, compiler_options=OPTIONS)
def _learn(run: list[Any], agent: list[Any], acted: list[Any], *, run_shape: Shape, shape: Shape) -> tuple[list[Any], Metrics, Acting]:  # fmt: skip
    (was,), one = run_shape.build(run), jax.tree.unflatten(shape.trees[0], agent)
    unrolled = Acted(*acted)
    example = jax.eval_shape(lambda: _example(one, was.state, was.sim, unrolled.key))
    steps = jax.tree.structure((example.step, example.action, example.extras))
    sim, unroll = _arrived(was, unrolled, steps, shape)
    now, metrics = fused.learn(one, was, sim, unroll, unrolled.key, unrolled.learn_key)
    return jax.tree.leaves(now), metrics, _acting(one, now.state)


def _arrived(run: Run, acted: Acted, steps_tree: Any, shape: Shape) -> tuple[Sim, Unroll]:
    """What actors have acted, as modules again."""
    _, _, memory_tree, step_tree = shape.trees
    before, memory = (jax.tree.unflatten(memory_tree, x) for x in (acted.before, acted.memory))
    sim = Sim((), jax.tree.unflatten(step_tree, acted.step), memory, run.sim.returns, run.sim.lengths)
    return sim, as_unroll(jax.tree.unflatten(steps_tree, acted.steps), before, acted.version)


def _acting(agent: Agent, state: PyTree) -> Acting:
    return jax.tree.leaves(agent.poised(agent.policy(state))), state.counts.updates
