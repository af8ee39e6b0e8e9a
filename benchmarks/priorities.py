"""Drawing by priority and writing priorities back, at several capacities: `python -m benchmarks.priorities`.

Writes `benchmarks/results/priorities.json`: microseconds of a batch of 128 in a compiled loop, the windows themselves gathered as well, as
they are for a uniform draw; and of an update of DQN, 64-64, on a batch of 128 steps of CartPole.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import machine
from yozh.agents import DQN
from yozh.agents.schedules import over
from yozh.core import Store, TimeStep, Unroll
from yozh.environments import make
from yozh.files import atomic_write
from yozh.networks.torsos import MLP
from yozh.runners.compiler import OPTIONS
from yozh.stores import PrioritisedReplay, Replay

BATCH, STREAMS, TURNS = 128, 8, 2000
STORES: dict[str, Callable[[int], Store]] = {
    "uniform": lambda n: Replay(n, BATCH),
    "proportional": lambda n: PrioritisedReplay(n, BATCH),
    "rank": lambda n: PrioritisedReplay(n, BATCH, kind="rank"),
}


def filled(store: Store, steps: int) -> Any:
    """With as many steps of CartPole's shape."""
    moments = steps // STREAMS + 1
    shape, none = (moments, STREAMS), jnp.zeros((moments, STREAMS), bool)
    step = TimeStep(jnp.zeros((*shape, 4)), jnp.ones(shape), jnp.ones(shape), none, none)
    version, weight = jnp.zeros(STREAMS, jnp.int32), jnp.ones(STREAMS)
    unroll = Unroll(step, jnp.zeros(shape, jnp.int32), {}, (), version, weight)
    return store.add(store.init(jax.tree.map(lambda x: x[:2], unroll)), unroll)


def microseconds(turn: Callable[[Any, jax.Array], Any], carry: Any) -> float:
    """Of one turn; the best of five loops."""

    def loop(carry: Any) -> Any:
        return jax.lax.fori_loop(0, TURNS, lambda i, c: turn(c, jax.random.fold_in(jax.random.key(0), i)), carry)

    run, times = jax.jit(loop, compiler_options=OPTIONS, donate_argnums=0).lower(carry).compile(), []
    for _ in range(5):
        began = time.perf_counter()
        carry = jax.block_until_ready(run(carry))
        times.append(time.perf_counter() - began)
    return 1e6 * min(times) / TURNS


def drawing(store: Store) -> Callable[[Any, jax.Array], Any]:
    def turn(carry: Any, key: jax.Array) -> Any:
        state, seen = carry
        batch, handle = store.sample(state, key)
        priority = jnp.abs(batch.step.reward[1] * jax.random.normal(key, (BATCH,)))
        return store.feedback(state, handle, priority), seen + jnp.sum(batch.step.obs[0]) + batch.weight[0]

    return turn


def learning() -> float:
    """Microseconds of an update of the network, all else left out."""
    agent = over(DQN(torso=MLP((64, 64), "relu", "uniform"), streams=STREAMS, batch=BATCH), 10**6)
    state = agent.init(jax.random.key(0), make("CartPole-v1", STREAMS).spec)
    shape, none = (2, BATCH), jnp.zeros((2, BATCH), bool)
    step = TimeStep(jnp.ones((*shape, 4)), jnp.ones(shape), jnp.ones(shape), none, none)
    batch = Unroll(step, jnp.zeros(shape, jnp.int32), {}, (), jnp.zeros(BATCH, jnp.int32), jnp.ones(BATCH))
    return microseconds(lambda state, key: agent.learn(state, batch, key)[0], state)


def main() -> None:
    update = learning()
    found: dict[str, Any] = {"batch": BATCH, "update_microseconds": round(update, 1), "draws_microseconds": {}}
    print(f"an update: {update:.1f} µs", flush=True)
    for name, store in STORES.items():
        times = {
            n: round(microseconds(drawing(store(n)), (filled(store(n), n), jnp.zeros(()))), 1)
            for n in (10**4, 10**5, 10**6)
        }
        found["draws_microseconds"][name] = times
        print(f"{name}: " + ", ".join(f"{t} µs at {n:,}" for n, t in times.items()), flush=True)
    found |= {"hardware": machine.hardware(), "versions": machine.versions()}
    atomic_write(machine.RESULTS / "priorities.json", json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
