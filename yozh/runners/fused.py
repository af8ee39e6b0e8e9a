"""Acting and learning in one compiled program."""

import time
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from yozh.core import Agent, AnyArray, BatchedEnv, Report, TimeStep, Unroll
from yozh.runners.compiler import OPTIONS
from yozh.runners.rollout import Sim, Tally, rollout, start, tally

QUANTITIES = ("nothing", "observation", "reward", "loss or gradient")


class Fault(eqx.Module):
    """The first number that was not finite. Once there is one, nothing more is learnt."""

    quantity: Int[Array, ""]
    """Index into `QUANTITIES`."""
    step: Int[Array, ""]
    """Environment steps before the unroll in which it appeared."""
    stream: Int[Array, ""]
    """-1 where it has none."""


class Run(eqx.Module):
    """All that a run is at one moment."""

    state: PyTree
    sim: Sim
    store: PyTree
    key: Key[Array, ""]
    fault: Fault


class Metrics(eqx.Module):
    """What happened during one `advance`."""

    tally: Tally
    report: dict[str, Float[AnyArray, ""]]
    """Means over the updates."""
    updates: Int[AnyArray, ""]


class Fused:
    """Runs an agent in a batched environment, both in one program whose buffers are donated."""

    def __init__(self, agent: Agent, env: BatchedEnv):
        self.agent, self.env = agent, env
        self._compiled: Any = None

    def init(self, key: Key[Array, ""]) -> Run:
        """A fresh run. For environments that are not pure this opens the simulator."""
        if not self.env.pure:
            key, reset = jax.random.split(key)
            return _init(self.agent, self.env, self.env.reset(reset), key)
        return _init(self.agent, self.env, None, key)

    def outline(self) -> Run:
        """The shapes of a run, nothing allocated."""
        opened = None if self.env.pure else self.env.reset(jax.random.key(0))
        return eqx.filter_eval_shape(_init, self.agent, self.env, opened, jax.random.key(0))

    def reopen(self, run: Run, *, anew: bool = False) -> Run:
        """The run in environments of this object: as it was where they are pure, unless `anew`; else at the start of new episodes."""
        if self.env.pure and not anew:
            return run
        return _reopen(self.agent, run, self.env.reset(jax.random.fold_in(run.key, 1)))

    def close(self) -> None:
        """Nothing runs in between."""

    def compile(self, run: Run) -> float:
        """Seconds spent on building the program; later calls of `advance` spend none."""
        start = time.perf_counter()
        lowered = _advance.lower(self.agent, self.env, run, jnp.int32(0))
        self._compiled = lowered.compile()
        return time.perf_counter() - start

    def advance(self, run: Run, n: int) -> tuple[Run, Metrics]:
        """`n` turns of acting and learning. `run` is used up."""
        if self._compiled is None:
            self.compile(run)
        return self._compiled(self.agent, self.env, run, jnp.int32(n))


def init(agent: Agent, env: BatchedEnv, key: Key[Array, ""], opened: Any = None) -> Run:
    """A fresh run as a pure function; `opened` is the answer of `env.reset` where that cannot be traced."""
    key, learn, reset = jax.random.split(key, 3)
    state = agent.init(learn, env.spec)
    env_state, step = env.reset(reset) if opened is None else opened
    params = agent.policy(state)
    sim = start(env_state, step, agent.initial_memory(params, env.batch))
    length, version = agent.experience.unroll, jnp.zeros((), jnp.int32)
    example = jax.eval_shape(lambda: rollout(agent, params, env, sim, length, version, key)[1])
    return begin(agent, state, sim, example, key)


@eqx.filter_jit
def _reopen(agent: Agent, run: Run, opened: tuple[PyTree, TimeStep]) -> Run:
    memory = agent.initial_memory(agent.policy(run.state), opened[1].reward.shape[0])
    return Run(run.state, start(*opened, memory), agent.experience.store.sever(run.store), run.key, run.fault)


def begin(agent: Agent, state: PyTree, sim: Sim, example: PyTree, key: Key[Array, ""]) -> Run:
    """A run before its first step; `example` has the shapes of its unrolls, or is `None` where they are stored elsewhere."""
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example)
    none = jnp.zeros((), jnp.int32)
    store = () if example is None else agent.experience.store.init(empty)
    return Run(state, sim, store, key, Fault(none, none, none))


def turn(agent: Agent, env: BatchedEnv, run: Run, told: tuple[str, ...] | None = None) -> tuple[Run, Metrics]:
    """Acts for one unroll, then learns: the whole of training. `told`: what learning tells, if that is known already."""
    experience = agent.experience
    key, act, learn_key = jax.random.split(run.key, 3)
    params = agent.policy(run.state)
    sim, unroll = rollout(agent, params, env, run.sim, experience.unroll, run.state.counts.updates, act)
    return learn(agent, run, sim, unroll, key, learn_key, told)


def learn(agent: Agent, run: Run, sim: Sim, unroll: Unroll, key: Key[Array, ""], learn_key: Key[Array, ""], told: tuple[str, ...] | None = None) -> tuple[Run, Metrics]:  # fmt: skip
    """What follows an unroll: store it, learn from the store, take note of it."""
    experience = agent.experience
    sim, ended, fault = arrive(run, sim, unroll)
    buffer = experience.store.add(run.store, unroll)
    due = is_due(agent, run, fault) & experience.store.ready(buffer)

    def update(
        i: Int[Array, ""] | int, carry: tuple[PyTree, PyTree, PyTree, Array]
    ) -> tuple[PyTree, PyTree, PyTree, Array]:
        state, buffer, total, finite = carry
        draw, step = update_keys(learn_key, i)
        batch, handle = experience.store.sample(buffer, draw)
        state, report = agent.learn(state, batch, step)
        buffer = experience.store.feedback(buffer, handle, report.priority)
        return state, buffer, jax.tree.map(jnp.add, total, report.metrics), finite & report.finite

    zero = nothing(_told(agent, run.state, buffer, learn_key) if told is None else told)
    n = jnp.where(due, experience.updates, 0)
    state, buffer, total, finite = jax.lax.fori_loop(0, n, update, (run.state, buffer, zero, jnp.ones((), bool)))
    return depart(agent, run, state, sim, buffer, key, fault, unroll, finite), Metrics(ended, total, n)


def arrive(run: Run, sim: Sim, unroll: Unroll) -> tuple[Sim, Tally, Fault]:
    """Before learning: the episodes that ended, and the first number that is not finite."""
    sim, ended = tally(sim, unroll)
    return sim, ended, _inspect(unroll, run.fault, run.state.counts.steps)


def is_due(agent: Agent, run: Run, fault: Fault) -> Bool[Array, ""]:
    return (fault.quantity == 0) & (run.state.counts.steps >= agent.experience.warm_up)


def update_keys(learn_key: Key[Array, ""], i: Int[Array, ""] | int) -> tuple[Array, Array]:
    """Of the i-th update of a turn: one to draw a batch with, one to learn with."""
    draw, step = jax.random.split(jax.random.fold_in(learn_key, i))
    return draw, step


def depart(agent: Agent, run: Run, state: PyTree, sim: Sim, buffer: PyTree, key: Key[Array, ""], fault: Fault, unroll: Unroll, finite: Bool[Array, ""]) -> Run:  # fmt: skip
    """After learning: the unroll is taken note of, unless something in it was not finite."""
    sound, steps = fault.quantity == 0, run.state.counts.steps
    seen = agent.observe(state, unroll)
    state = jax.tree.map(lambda new, old: new if new is old else jnp.where(sound, new, old), seen, state)
    return Run(state, sim, buffer, key, _first(fault, ~finite, 3, steps, jnp.int32(-1)))


def _inspect(unroll: Unroll, fault: Fault, steps: Int[Array, ""]) -> Fault:
    """Looks for numbers that are not finite in what the environment sent."""
    for i, x in ((1, unroll.step.obs), (2, unroll.step.reward)):
        bad = [~jnp.isfinite(y).all(axis=(0, *range(2, y.ndim))) for y in jax.tree.leaves(x) if y.dtype == jnp.float32]
        if bad:
            streams = jnp.stack(bad).any(0)
            fault = _first(fault, streams.any(), i, steps, jnp.argmax(streams).astype(jnp.int32))
    return fault


def _first(fault: Fault, bad: Bool[Array, ""], quantity: int, step: Int[Array, ""], stream: Int[Array, ""]) -> Fault:
    new = bad & (fault.quantity == 0)
    return jax.tree.map(lambda n, o: jnp.where(new, n, o), Fault(jnp.int32(quantity), step, stream), fault)


def _told(agent: Agent, state: PyTree, buffer: PyTree, key: Key[Array, ""]) -> tuple[str, ...]:
    """The names of what learning tells, found by tracing it once."""

    def report() -> Report:
        return agent.learn(state, agent.experience.store.sample(buffer, key)[0], key)[1]

    return tuple(jax.eval_shape(report).metrics)


def nothing(told: Iterable[str]) -> dict[str, Float[Array, ""]]:
    return {name: jnp.zeros(()) for name in told}


@eqx.filter_jit
def _init(agent: Agent, env: BatchedEnv, opened: Any, key: Key[Array, ""]) -> Run:
    return init(agent, env, key, opened)


def advance(agent: Agent, env: BatchedEnv, run: Run, n: Int[Array, ""]) -> tuple[Run, Metrics]:
    """`n` turns as a pure function."""

    def body(i: Int[Array, ""] | int, carry: tuple[Run, Metrics]) -> tuple[Run, Metrics]:
        run, total = carry
        run, metrics = turn(agent, env, run, told)
        return run, jax.tree.map(jnp.add, total, metrics)

    told = _told(agent, run.state, run.store, run.key)
    none = jnp.zeros((), jnp.int32)
    total = Metrics(Tally(none, jnp.zeros(()), jnp.zeros(())), nothing(told), none)
    run, total = jax.lax.fori_loop(0, n, body, (run, total))
    return run, summed(total)


def summed(total: Metrics) -> Metrics:
    """Sums over the updates become means."""
    updates = jnp.maximum(total.updates, 1).astype(jnp.float32)
    return Metrics(total.tally, {k: v / updates for k, v in total.report.items()}, total.updates)


_advance = jax.jit(advance, donate_argnames="run", compiler_options=OPTIONS)
