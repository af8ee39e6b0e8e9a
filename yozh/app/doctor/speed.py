"""How fast an environment runs: alone, as a vector in this process, and as processes."""

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yozh import spaces
from yozh.app.doctor.findings import Findings
from yozh.app.doctor.patience import Broken, Hung, Patience
from yozh.app.doctor.trial import choose
from yozh.core import HostEnv, YozhError
from yozh.environments import make
from yozh.environments.batched import Vectorised
from yozh.environments.gymnasium import GymnasiumHost

SECONDS = 0.3
"""How long each way is measured."""
HANDING_OVER = 1e-4
"""Seconds below which a step is not worth a process of its own: sending it there and back takes as long."""


def gymnasium(constructor: Callable[[], Any], findings: Findings, envs: int) -> None:
    """Tells the steps a second of one copy, of `envs` in this process and, where steps are slow, in worker processes."""
    patience = Patience()

    def measured(what: str, measure: Callable[[], float], limit: float) -> float:
        try:
            with warnings.catch_warnings(action="ignore"):  # what the adapter warns of is told already
                return patience(measure, limit=limit)
        except Broken as error:
            asked = error.error if isinstance(error.error, YozhError) else error
            findings.add("error", what, f"{envs} streams {what}", f"raised {asked}", "see that several copies can live side by side")  # fmt: skip
        except Hung:
            findings.add("error", what, f"{envs} streams {what}", f"did not come back within {limit:g} s")
        return 0.0

    alone = measured("alone", lambda: _rate(lambda: GymnasiumHost(constructor, 1)), 30.0)
    vector = alone and measured("in this process", lambda: _rate(lambda: GymnasiumHost(constructor, envs)), 30.0)
    if not vector:
        return
    told = f"1 stream makes {alone:,.0f} steps a second, {envs} in this process {vector:,.0f}"
    if 1 / alone < HANDING_OVER or (os.cpu_count() or 1) < 2:
        advice = (
            "worker processes would be slower: a step takes less than handing it over"
            if 1 / alone < HANDING_OVER
            else ""
        )
        findings.add("note", "speed", "speed", told, advice)
        return
    workers = measured("in worker processes", lambda: _rate(lambda: make(constructor, envs, workers=True)), 60.0)
    advice = "take workers: yozh.make(env, n, workers=True)" if workers > 1.2 * vector else "stay in this process"
    findings.add(
        "note", "speed", "speed", f"{told}, {envs} in worker processes {workers:,.0f}", advice if workers else ""
    )


def pure(vector: Vectorised, findings: Findings) -> None:
    """Tells the steps a second of a pure environment in a compiled program."""
    zeros = jax.tree.map(jnp.asarray, spaces.zeros(vector.spec.action, (vector.n,)))
    turns = 1000

    @jax.jit
    def play(state: Any) -> Any:
        return jax.lax.fori_loop(0, turns, lambda _, s: vector.step(s, zeros)[0], state)

    state = jax.block_until_ready(play(vector.reset(jax.random.key(0))[0]))
    began = time.perf_counter()
    jax.block_until_ready(play(state))
    rate = turns * vector.n / (time.perf_counter() - began)
    findings.add("note", "speed", "speed", f"{vector.n} streams make {rate:,.0f} steps a second in a compiled program")


def host(env: HostEnv, findings: Findings) -> None:
    """Tells the steps a second of an environment that lives as a vector already."""
    rate = _rate(lambda: env, close=False)
    findings.add("note", "speed", "speed", f"{env.batch} streams make {rate:,.0f} steps a second")


def _rate(open_: Callable[[], HostEnv], close: bool = True) -> float:
    """Under random legal actions."""
    env, rng, taken = open_(), np.random.default_rng(0), 0
    space, batch = env.spec.action, env.batch
    try:
        step, drawn = env.reset(0), [choose(space, None, batch, rng) for _ in range(16)]
        began = time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            legal = step.extras.get("legal")
            env.send(drawn[taken // batch % 16] if legal is None else choose(space, legal, batch, rng))
            step = env.recv()
            taken += batch
        return taken / (time.perf_counter() - began)
    finally:
        if close:
            env.close()
