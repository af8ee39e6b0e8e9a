"""How much memory, and time, a `HostReplay` of Atari's images takes: `python -m benchmarks.replay_memory [TRANSITIONS]`.

Eight streams of 84x84 noise in stacks of four, episodes of 1,000 steps on average. Runs at one tenth of the size of the
usual replay unless told otherwise, and says what the whole would need.
"""

import argparse
import json
import resource
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import machine
from yozh.core import TimeStep, Unroll
from yozh.stores import HostReplay

STREAMS, SIDE, DEPTH, EPISODE = 8, 84, 4, 1000
WHOLE = 1_000_000


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.replay_memory")
    parser.add_argument("transitions", nargs="?", type=int, default=WHOLE // 10)
    transitions = parser.parse_args().transitions
    random = np.random.default_rng(0)
    store = HostReplay(transitions, batch=32, stack="first")
    unrolls = camera(random)
    store.init(next(unrolls))
    jax.block_until_ready(jax.random.bits(jax.random.key(0), (2, 32), jnp.uint32))
    before, adding = peak(), []
    for _ in range(transitions // STREAMS):
        unroll = next(unrolls)
        began = time.perf_counter()
        store.add(unroll)
        adding.append(time.perf_counter() - began)
    sampling = []
    for i in range(200):
        began = time.perf_counter()
        store.sample(jax.random.key(i))
        sampling.append(time.perf_counter() - began)
    used = peak() - before
    result = {
        "transitions": len(store),
        "peak_gb": round(peak() / 1e9, 3),
        "of_which_the_store_gb": round(used / 1e9, 3),
        "bytes_per_transition": round(used / len(store)),
        "set_aside_per_transition": round(store.nbytes / transitions),
        "whole_gb": round((store.nbytes / transitions * WHOLE + before) / 1e9, 2),
        "sample_ms": round(1e3 * statistics.median(sampling), 3),
        "add_us_per_step_of_all_streams": round(1e6 * statistics.median(adding), 1),
        "add_us_per_transition": round(1e6 * statistics.median(adding) / STREAMS, 2),
    }
    print(json.dumps({"hardware": machine.hardware()} | result, indent=2))
    return 0


def camera(random: np.random.Generator):
    """Endless unrolls of one step, each beginning with the step that the one before ended with."""
    frames, last = np.zeros((STREAMS, DEPTH, SIDE, SIDE), np.uint8), np.ones(STREAMS, bool)
    zero = np.zeros(STREAMS, np.int32)
    before = None
    while True:
        new = np.frombuffer(random.bytes(STREAMS * SIDE * SIDE), np.uint8).reshape(STREAMS, 1, SIDE, SIDE)
        frames = np.concatenate([frames[:, 1:], new], 1)
        frames[last] = new[last]
        first, last = last, random.random(STREAMS) < 1 / EPISODE
        step = TimeStep(frames, zero.astype(np.float32), 1 - last.astype(np.float32), first, last)
        if before is not None:
            both = jax.tree.map(lambda *x: np.stack(x), before, step)
            yield Unroll(both, np.stack([zero, zero]), {}, (), zero, zero + 1.0)
        before = step


def peak() -> int:
    """Bytes that this process has had in memory at the most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    sys.exit(main())
