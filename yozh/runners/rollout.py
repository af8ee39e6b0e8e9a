"""Acting: T steps of B streams, in the compiled program."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from yozh import spaces
from yozh.core import Agent, BatchedEnv, TimeStep, Unroll


class Tally(eqx.Module):
    """Episodes that ended, summed up."""

    episodes: Int[Array, ""]
    returns: Float[Array, ""]
    lengths: Float[Array, ""]

    @classmethod
    def zero(cls) -> "Tally":
        return cls(jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.zeros(()))

    def __add__(self, other: "Tally") -> "Tally":
        return jax.tree.map(jnp.add, self, other)


class Sim(eqx.Module):
    """Where B streams stand."""

    env: PyTree
    step: TimeStep
    memory: PyTree
    returns: Float[Array, " B"]
    """Undiscounted reward of the running episodes."""
    lengths: Float[Array, " B"]

    @classmethod
    def start(cls, env: PyTree, step: TimeStep, memory: PyTree) -> "Sim":
        zero = jnp.zeros(step.reward.shape)
        return cls(env, step, memory, zero, zero)

    def arrive(self, env: PyTree, step: TimeStep, memory: PyTree) -> tuple["Sim", Tally]:
        """The streams after one step, and the episodes that it closed."""
        running = 1.0 - step.first.astype(jnp.float32)
        returns, lengths = running * self.returns + step.reward, running * (self.lengths + 1.0)
        ended = step.last.astype(jnp.float32)
        tally = Tally(jnp.sum(step.last, dtype=jnp.int32), jnp.sum(ended * returns), jnp.sum(ended * lengths))
        return Sim(env, step, memory, returns, lengths), tally


def rollout(agent: Agent, params: PyTree, env: BatchedEnv, sim: Sim, length: int, version: Int[Array, ""],
            key: Key[Array, ""], *, explore: bool = True) -> tuple[Sim, Unroll, Tally]:  # fmt: skip
    """`length` steps of every stream, and one more look at the step where they stop."""

    def advance(carry: tuple[Sim, Tally], key: Key[Array, ""]) -> tuple[tuple[Sim, Tally], tuple[TimeStep, PyTree, PyTree]]:
        sim, tally = carry
        act, move = jax.random.split(key)
        action, extras, memory = agent.act(params, sim.memory, sim.step, act, explore=explore)
        state, step = env.step(sim.env, spaces.clip(env.spec.action, action), move)
        after, ended = sim.arrive(state, step, memory)
        return (after, tally + ended), (sim.step, action, extras)

    key, peek = jax.random.split(key)
    (after, tally), past = jax.lax.scan(advance, (sim, Tally.zero()), jax.random.split(key, length))
    # The action of the final step is chosen again when the next unroll begins; what it leaves unused is never computed.
    action, extras, _ = agent.act(params, after.memory, after.step, peek, explore=explore)
    step, action, extras = jax.tree.map(lambda p, n: jnp.concatenate([p, n[None]]), past, (after.step, action, extras))
    version = jnp.broadcast_to(version[None], sim.returns.shape)
    return after, Unroll(step, action, extras, sim.memory, version, jnp.ones(sim.returns.shape)), tally
