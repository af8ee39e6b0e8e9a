"""Acting: T steps of B streams, in the compiled program."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from yozh import spaces
from yozh.core import Agent, AnyArray, BatchedEnv, TimeStep, Unroll
from yozh.networks.layers import turned


class Sim(eqx.Module):
    """Where B streams stand."""

    env: PyTree
    step: TimeStep
    memory: PyTree
    returns: Float[Array, " B"]
    """Undiscounted reward of the running episodes."""
    lengths: Float[Array, " B"]


def start(env: PyTree, step: TimeStep, memory: PyTree) -> Sim:
    zero = jnp.zeros(step.reward.shape)
    return Sim(env, step, memory, zero, zero)


class Tally(eqx.Module):
    """Episodes that ended, summed up."""

    episodes: Int[AnyArray, "*b"]
    returns: Float[AnyArray, "*b"]
    lengths: Float[AnyArray, "*b"]


def rollout(agent: Agent, params: PyTree, env: BatchedEnv, sim: Sim, length: int, version: Int[Array, "*b"], key: Key[Array, ""]) -> tuple[Sim, Unroll]:  # fmt: skip
    """`length` steps of every stream, and one more look at the step where they stop."""

    def advance(carry: tuple[PyTree, TimeStep, PyTree], key: Key[Array, ""]) -> tuple[tuple[PyTree, TimeStep, PyTree], tuple[TimeStep, PyTree, PyTree]]:  # fmt: skip
        state, step, memory = carry
        action, extras, memory = agent.act(params, memory, step, key)
        state, after = env.step(state, spaces.clip(env.spec.action, action))
        # The step arrived at is kept, not the one left: that would outlive its place in the carry, and be copied.
        return (state, after, memory), (after, action, extras)

    keys, params = unroll_keys(key, length), turned(agent.poised(params))
    (state, step, memory), (later, *past) = jax.lax.scan(advance, (sim.env, sim.step, sim.memory), keys[:-1])
    # The action of the final step is chosen again when the next unroll begins; what it leaves unused is never computed.
    action, extras, _ = agent.act(params, memory, step, keys[-1])
    begun = jax.tree.map(lambda n, p: jnp.concatenate([n[None], p]), sim.step, later)
    done = jax.tree.map(lambda p, n: jnp.concatenate([p, n[None]]), tuple(past), (action, extras))
    steps = (begun, *done)
    return Sim(state, step, memory, sim.returns, sim.lengths), as_unroll(steps, sim.memory, version)


def unroll_keys(key: Key[Array, ""], length: int) -> Key[Array, " T1"]:
    """One for each of the T+1 steps that an unroll looks at."""
    return jax.random.split(key, length + 1)


def as_unroll(steps: tuple[TimeStep, PyTree, PyTree], memory: PyTree, version: Int[Array, ""]) -> Unroll:
    """From `(step, action, extras)`, `[T+1, B, ...]`, and the memory before them."""
    streams = steps[0].reward.shape[1]
    return Unroll(*steps, memory, jnp.broadcast_to(version[None], (streams,)), jnp.ones(streams))


def tally(sim: Sim, unroll: Unroll) -> tuple[Sim, Tally]:
    """Follows the running episodes through the unroll, and sums up those that it closed."""

    def arrive(carry: tuple[Array, Array], step: TimeStep) -> tuple[tuple[AnyArray, AnyArray], Tally]:
        running = 1.0 - step.first.astype(jnp.float32)
        returns, lengths = running * carry[0] + step.reward, running * (carry[1] + 1.0)
        ended = step.last.astype(jnp.float32)
        return (returns, lengths), Tally(step.last.astype(jnp.int32), ended * returns, ended * lengths)

    steps = TimeStep((), *(getattr(unroll.step, f)[1:] for f in ("reward", "discount", "first", "last")))
    (returns, lengths), ended = jax.lax.scan(arrive, (sim.returns, sim.lengths), steps)
    return Sim(sim.env, sim.step, sim.memory, returns, lengths), jax.tree.map(jnp.sum, ended)
