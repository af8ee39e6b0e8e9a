"""Measuring a policy: fresh environments, frozen parameters and statistics, no exploration."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from yozh import spaces
from yozh.agents.base import ValueAgent
from yozh.core import Agent, BatchedEnv, HostEnv, require
from yozh.runners.foresight import Foresight

LONGEST = 1_000_000
"""Steps of one stream after which an evaluation stops waiting for an episode to end."""


class Episodes(eqx.Module):
    """The first `rounds` episodes of each of B streams, so that short episodes are not counted more often than long ones."""

    returns: Float[Array, "rounds B"]
    lengths: Float[Array, "rounds B"]
    done: Int[Array, " B"]
    foresight: Foresight | None = None
    """`[rounds, B]`; `None` where the agent has no values of actions."""


def streams(episodes: int, limit: int = 10) -> int:
    """How many streams share the episodes evenly: the largest divisor up to the limit, or the limit."""
    even = max(n for n in range(1, min(episodes, limit) + 1) if episodes % n == 0)
    return even if even > limit // 4 else min(episodes, limit)


def evaluate(agent: Agent, params: PyTree, env: BatchedEnv | HostEnv, *, episodes: int, seed: int, explore: bool = False) -> dict[str, Any]:  # fmt: skip
    """Returns of whole episodes and what they amount to: mean, deviation and the mean's 95 % interval (bootstrap).

    Of an agent that learns values of actions also `predicted_value`, the mean of its own estimate of the action it chose over all
    states that were visited, but for last ones; `discounted_return`, the mean of what came after them, of the rewards that it learns
    from (in a truncated episode the last but one state stands for what would have come, by its own estimate); `overestimation`, the
    first less the second; and `largest_value`, the largest |estimate|.
    """
    require(episodes > 0, f"episodes must be positive, not {episodes}")
    rounds = -(-episodes // env.batch)
    measure = _fused if isinstance(env, BatchedEnv) else _hosted
    returns, lengths, foresight = measure(agent, params, env, rounds, seed, explore)
    # Episodes beyond the number asked for are left out stream by stream, not by how soon they ended.
    returns, lengths = returns.ravel()[:episodes], lengths.ravel()[:episodes]
    require(np.isfinite(lengths).all(), f"an episode did not end within {LONGEST:,} steps")
    found = summarise(returns, lengths)
    if foresight is None:
        return found
    return found | Foresight(*(np.asarray(x).ravel()[:episodes] for x in foresight)).summary()


def summarise(returns: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    means = rng.choice(returns, (10_000, len(returns))).mean(1) if len(returns) > 1 else returns
    return {
        "episodes": len(returns),
        "mean_return": float(returns.mean()),
        "std_return": float(returns.std()),
        "ci95": [float(x) for x in np.percentile(means, [2.5, 97.5])],
        "mean_length": float(lengths.mean()),
        "returns": [float(x) for x in returns],
    }


def _fused(
    agent: Agent, params: PyTree, env: BatchedEnv, rounds: int, seed: int, explore: bool
) -> tuple[np.ndarray, np.ndarray, Foresight | None]:
    reset, key = jax.random.split(jax.random.key(seed))
    state, step = env.reset(reset)
    done = episodes(agent, params, env, state, step, key, rounds, explore)
    return np.asarray(done.returns), np.asarray(done.lengths), done.foresight


@eqx.filter_jit
def episodes(agent: Agent, params: PyTree, env: BatchedEnv, state: PyTree, step: Any, key: Any, rounds: int, explore: bool) -> Episodes:  # fmt: skip
    """The first `rounds` episodes of each stream, from the answer of `env.reset` on."""
    zero, unknown = jnp.zeros(env.batch), jnp.full((rounds, env.batch), jnp.nan)
    memory = agent.initial_memory(params, env.batch)
    silent = jax.eval_shape(lambda: _expected(agent, params, memory, step)) is None
    nothing = None if silent else jax.tree.map(jnp.asarray, Foresight.none((env.batch,)))

    def unfinished(carry: tuple) -> Array:
        return jnp.any(carry[-1].done < rounds) & (carry[0] < LONGEST)

    def advance(carry: tuple) -> tuple:
        t, state, step, memory, total, length, foresight, found = carry
        action, memory, value = _act(agent, params, memory, step, jax.random.fold_in(key, t), explore)
        state, step = env.step(state, spaces.clip(env.spec.action, action))
        total = jnp.where(step.first, 0.0, total + step.reward)
        length = jnp.where(step.first, 0.0, length + 1.0)
        if isinstance(agent, ValueAgent) and value is not None:
            foresight = foresight.onward(value, agent.reward(step.reward), step, agent.gamma)
        row = jnp.arange(rounds)[:, None]
        here = (step.last & (found.done < rounds))[None] & (row == found.done[None])
        found = Episodes(
            jnp.where(here, total[None], found.returns),
            jnp.where(here, length[None], found.lengths),
            found.done + step.last.astype(jnp.int32),
            jax.tree.map(lambda now, all: jnp.where(here, now[None], all), foresight, found.foresight),
        )
        return t + 1, state, step, memory, total, length, foresight, found

    before = jax.tree.map(lambda x: jnp.zeros((rounds, *x.shape)), nothing)
    found = Episodes(unknown, unknown, jnp.zeros(env.batch, jnp.int32), before)
    carry = (jnp.int32(0), state, step, memory, zero, zero, nothing, found)
    return jax.lax.while_loop(unfinished, advance, carry)[-1]


def _act(agent: Agent, params: PyTree, memory: PyTree, step: Any, key: Any, explore: bool) -> tuple[PyTree, PyTree, Array | None]:  # fmt: skip
    """The action, the memory after it, and what the agent expects of it, if it says so."""
    value = _expected(agent, params, memory, step)
    action, _, memory = agent.act(params, memory, step, key, explore=explore)
    return action, memory, value


_act_alone = eqx.filter_jit(_act)


def _expected(agent: Agent, params: PyTree, memory: PyTree, step: Any) -> Float[Array, " B"] | None:
    return agent.expected(params, memory, step) if isinstance(agent, ValueAgent) else None


def _hosted(
    agent: Agent, params: PyTree, env: HostEnv, rounds: int, seed: int, explore: bool
) -> tuple[np.ndarray, np.ndarray, Foresight | None]:
    step, key = env.reset(seed), jax.random.key(seed)
    memory = agent.initial_memory(params, env.batch)
    returns, lengths = np.full((2, rounds, env.batch), np.nan)
    total, length, done = np.zeros(env.batch), np.zeros(env.batch), np.zeros(env.batch, int)
    foresight, found, value = Foresight.none((env.batch,)), Foresight.none((rounds, env.batch)), None
    for t in range(LONGEST):
        action, memory, value = _act_alone(
            agent, params, memory, jax.tree.map(jnp.asarray, step), jax.random.fold_in(key, t), explore
        )
        env.send(jax.tree.map(np.asarray, spaces.clip(env.spec.action, action)))
        step = env.recv()
        total, length = np.where(step.first, 0.0, total + step.reward), np.where(step.first, 0.0, length + 1.0)
        if isinstance(agent, ValueAgent) and value is not None:
            learnt = np.asarray(agent.reward(jnp.asarray(step.reward)))
            foresight = foresight.onward(np.asarray(value), learnt, step, np.asarray(agent.gamma))
        for i in np.flatnonzero(np.asarray(step.last) & (done < rounds)):
            returns[done[i], i], lengths[done[i], i] = total[i], length[i]
            for all, now in zip(found, foresight, strict=True):
                all[done[i], i] = now[i]
            done[i] += 1
        if (done >= rounds).all():
            break
    return returns, lengths, None if value is None else found
