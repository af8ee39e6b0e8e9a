"""Measuring a policy: fresh environments, frozen parameters and statistics, no exploration."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from yozh import spaces
from yozh.core import Agent, BatchedEnv, HostEnv, require

LONGEST = 1_000_000
"""Steps of one stream after which an evaluation stops waiting for an episode to end."""


class Episodes(eqx.Module):
    """The first `rounds` episodes of each of B streams, so that short episodes are not counted more often than long ones."""

    returns: Float[Array, "rounds B"]
    lengths: Float[Array, "rounds B"]
    done: Int[Array, " B"]


def streams(episodes: int, limit: int = 10) -> int:
    """How many streams share the episodes evenly: the largest divisor up to the limit, or the limit."""
    even = max(n for n in range(1, min(episodes, limit) + 1) if episodes % n == 0)
    return even if even > limit // 4 else min(episodes, limit)


def evaluate(agent: Agent, params: PyTree, env: BatchedEnv | HostEnv, *, episodes: int, seed: int, explore: bool = False) -> dict[str, Any]:  # fmt: skip
    """Returns of whole episodes and what they amount to: mean, deviation and the mean's 95 % interval (bootstrap)."""
    require(episodes > 0, f"episodes must be positive, not {episodes}")
    rounds = -(-episodes // env.batch)
    measure = _fused if isinstance(env, BatchedEnv) else _hosted
    returns, lengths = measure(agent, params, env, rounds, seed, explore)
    # Episodes beyond the number asked for are left out stream by stream, not by how soon they ended.
    returns, lengths = returns.ravel()[:episodes], lengths.ravel()[:episodes]
    require(np.isfinite(lengths).all(), f"an episode did not end within {LONGEST:,} steps")
    return summarise(returns, lengths)


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
) -> tuple[np.ndarray, np.ndarray]:
    reset, key = jax.random.split(jax.random.key(seed))
    state, step = env.reset(reset)
    done = _episodes(agent, params, env, state, step, key, rounds, explore)
    return np.asarray(done.returns), np.asarray(done.lengths)


@eqx.filter_jit
def _episodes(agent: Agent, params: PyTree, env: BatchedEnv, state: PyTree, step: Any, key: Any, rounds: int, explore: bool) -> Episodes:  # fmt: skip
    zero, unknown = jnp.zeros(env.batch), jnp.full((rounds, env.batch), jnp.nan)

    def unfinished(carry: tuple) -> Array:
        return jnp.any(carry[-1].done < rounds) & (carry[0] < LONGEST)

    def advance(carry: tuple) -> tuple:
        t, state, step, memory, total, length, found = carry
        action, _, memory = agent.act(params, memory, step, jax.random.fold_in(key, t), explore=explore)
        state, step = env.step(state, spaces.clip(env.spec.action, action))
        total = jnp.where(step.first, 0.0, total + step.reward)
        length = jnp.where(step.first, 0.0, length + 1.0)
        row = jnp.arange(rounds)[:, None]
        here = (step.last & (found.done < rounds))[None] & (row == found.done[None])
        found = Episodes(
            jnp.where(here, total[None], found.returns),
            jnp.where(here, length[None], found.lengths),
            found.done + step.last.astype(jnp.int32),
        )
        return t + 1, state, step, memory, total, length, found

    found = Episodes(unknown, unknown, jnp.zeros(env.batch, jnp.int32))
    memory = agent.initial_memory(params, env.batch)
    carry = (jnp.int32(0), state, step, memory, zero, zero, found)
    return jax.lax.while_loop(unfinished, advance, carry)[-1]


def _hosted(
    agent: Agent, params: PyTree, env: HostEnv, rounds: int, seed: int, explore: bool
) -> tuple[np.ndarray, np.ndarray]:
    from yozh.runners.policy import act

    step, key = env.reset(seed), jax.random.key(seed)
    memory = agent.initial_memory(params, env.batch)
    returns, lengths = np.full((2, rounds, env.batch), np.nan)
    total, length, done = np.zeros(env.batch), np.zeros(env.batch), np.zeros(env.batch, int)
    for t in range(LONGEST):
        action, memory = act(
            agent, params, memory, jax.tree.map(jnp.asarray, step), jax.random.fold_in(key, t), explore
        )
        env.send(jax.tree.map(np.asarray, spaces.clip(env.spec.action, action)))
        step = env.recv()
        total, length = np.where(step.first, 0.0, total + step.reward), np.where(step.first, 0.0, length + 1.0)
        for i in np.flatnonzero(np.asarray(step.last) & (done < rounds)):
            returns[done[i], i], lengths[done[i], i] = total[i], length[i]
            done[i] += 1
        if (done >= rounds).all():
            break
    return returns, lengths
