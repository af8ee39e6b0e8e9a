"""Where the time of PPO goes (the case ppo-cartpole): `python -m benchmarks.profile_ppo`.

Every part runs alone in a compiled loop; the shortest of many short repetitions is told, so that other load on the
machine matters little. Parts that are alone cannot be fused with their neighbours: their sum may exceed the whole.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from benchmarks import machine
from benchmarks.ours import build
from yozh.agents.ppo import PPO
from yozh.runners.rollout import rollout, tally

SECONDS, LONG = 3.0, 0.02


def cost(step: Callable[[Any], Any], carry: Any) -> float:
    """Seconds of one `carry -> carry`."""
    loop = jax.jit(lambda carry, n: jax.lax.fori_loop(0, n, lambda _, c: step(c), carry)).lower(carry, 0).compile()

    def took(n: int) -> float:
        began = time.perf_counter()
        jax.block_until_ready(loop(carry, jnp.int32(n)))
        return time.perf_counter() - began

    n = 1
    while took(n) < LONG:
        n *= 2
    until, best = time.perf_counter() + SECONDS, took(n)
    while time.perf_counter() < until:
        best = min(best, took(n))
    return best / n


def touch(x: Any, by: Any) -> Any:
    """The pytree `x`, of a value that depends on `by`, so that nothing is hoisted out of the loop or left out."""
    nought = (
        sum(jnp.sum(y.astype(jnp.float32)) for y in jax.tree.leaves(by) if eqx.is_array(y) and y.dtype != bool) * 0.0
    )
    return jax.tree.map(lambda y: y + nought.astype(y.dtype) if jnp.issubdtype(y.dtype, jnp.floating) else y, x)


def measure() -> dict[str, Any]:
    runner = build("ppo-cartpole", 500_000)
    agent, env = runner.agent, runner.env
    assert isinstance(agent, PPO)
    key = jax.random.key(0)
    run = runner.init(key)
    runner.compile(run)
    run, _ = runner.advance(run, 20)
    unroll = jax.jit(
        lambda r: rollout(agent, agent.policy(r.state), env, r.sim, agent.length, r.state.counts.updates, key)[1]
    )(run)

    def whole() -> float:
        nonlocal run
        best = jnp.inf
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            began = time.perf_counter()
            run, _ = jax.block_until_ready(runner.advance(run, 10))
            best = min(best, time.perf_counter() - began)
        return best / 10

    def act(carry: Any) -> Any:
        now = jax.random.fold_in(key, carry[0].env.time)
        return rollout(agent, agent.policy(run.state), env, carry[0], agent.length, run.state.counts.updates, now)

    def prepare(unroll: Any) -> Any:
        return touch(unroll, agent.samples(run.state, unroll, None)[1].advantage)

    _, samples = agent.samples(run.state, unroll, None)
    first = jax.tree.map(lambda x: x[0], samples.shuffled(agent.minibatches, key))

    def shuffle(carry: Any) -> Any:
        samples, key = carry
        key, now = jax.random.split(key)
        parts = samples.shuffled(agent.minibatches, now)
        return eqx.tree_at(lambda s: s.value, samples, parts.value.reshape(1, -1)), key

    def gradient(net: Any) -> Any:
        found = jax.grad(lambda net: agent.loss(net, run.state, first, None)[0])(net)
        return jax.tree.map(lambda p, g: p - 1e-6 * g, net, found)

    def descend(state: Any) -> Any:
        return agent.descend(state, first, None)[0]

    ones = jnp.ones_like(ravel_pytree(run.state.net)[0])

    def adam(carry: Any) -> Any:
        weights, optimiser = carry
        with jax.numpy_dtype_promotion("standard"):
            updates, optimiser = agent.optimiser(run.state.counts).update(ones, optimiser)
        return weights + updates, optimiser

    batch, (a, b, c) = agent.streams * agent.length // agent.minibatches, (128, 64, 64)
    weight = jnp.eye(b)
    product = cost(lambda x: x @ weight, jnp.ones((a, b)))
    gigaflops = 2 * a * b * c / product / 1e9
    flops = sum(
        2 * batch * i * o * (2 if i == 4 else 3) for i, o in ((4, 64), (64, 64), (64, 2), (4, 64), (64, 64), (64, 1))
    )
    updates = agent.epochs * agent.minibatches
    once = {
        "rollout": (1, cost(act, (run.sim, unroll))),
        "tally of episodes": (1, cost(lambda sim: tally(sim, unroll)[0], run.sim)),
        "values and advantages": (1, cost(prepare, unroll)),
        "shuffle": (agent.epochs, cost(shuffle, (samples, key))),
        "gradient of a minibatch": (updates, cost(gradient, run.state.net)),
        "Adam": (updates, cost(adam, (ones, run.state.optimiser))),
    }
    parts = {name: {"times": n, "microseconds": 1e6 * s} for name, (n, s) in once.items()}
    return {
        "hardware": machine.hardware(),
        "versions": machine.versions(),
        "steps_per_turn": agent.streams * agent.length,
        "turn_microseconds": 1e6 * whole(),
        "parts": parts,
        "one_update_microseconds": 1e6 * cost(descend, run.state),
        "product_gigaflops": gigaflops,
        "limit_microseconds": updates * flops / gigaflops / 1e3,
    }


def main() -> None:
    found = measure()
    (out := machine.RESULTS).mkdir(parents=True, exist_ok=True)
    (out / "profile-ppo.json").write_text(json.dumps(found, indent=2) + "\n")
    turn = found["turn_microseconds"]
    print(
        f"one turn of {found['steps_per_turn']} steps: {turn:,.0f} µs, {found['steps_per_turn'] / turn * 1e6:,.0f} steps/s"
    )
    for name, part in found["parts"].items():
        total = part["times"] * part["microseconds"]
        print(f"  {name:24} {part['times']:3} x {part['microseconds']:8.1f} µs = {total:8.0f} µs {total / turn:6.0%}")
    print(f"  one whole update             {found['one_update_microseconds']:8.1f} µs")
    limit = found["limit_microseconds"]
    print(
        f"arithmetic of the updates at {found['product_gigaflops']:.0f} GFLOP/s (128x64x64): {limit:,.0f} µs {limit / turn:.0%}"
    )


if __name__ == "__main__":
    main()
