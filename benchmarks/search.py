"""Evaluations a second of black-box search: `python -m benchmarks.search`. Writes `benchmarks/results/search.json`.

An evaluation is one whole episode with weights of its own. Pendulum's always have 200 steps; those of CartPole are measured with
policies that keep the pole up, 500 steps each, so both are what a population costs at the end of its learning.
"""

import json
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import machine
from yozh.agents import ARS, ES
from yozh.agents.schedules import over
from yozh.core import Agent
from yozh.environments import make
from yozh.files import atomic_write
from yozh.networks import Auto
from yozh.runners.fused import Fused

POPULATION = 1024
CASES: dict[str, tuple[str, Agent]] = {
    "ES, 64-64, Pendulum": ("Pendulum-v1", ES(streams=POPULATION, horizon=200, length=201)),
    "ES, 16-16, Pendulum": ("Pendulum-v1", ES(streams=POPULATION, horizon=200, length=201, torso=Auto((16, 16), "tanh", "orthogonal"))),
    "ARS, linear, Pendulum": ("Pendulum-v1", ARS(streams=POPULATION, horizon=200, length=201)),
    "ES, 64-64, CartPole": ("CartPole-v1", ES(streams=POPULATION, length=250)),
    "ARS, linear, CartPole": ("CartPole-v1", ARS(streams=POPULATION, length=250)),
}  # fmt: skip


def measured(id: str, agent: Agent, turns: int = 12, learning: int = 60) -> dict[str, Any]:
    agent = over(agent, 10**9)
    env = make(id, agent.experience.streams)
    runner = Fused(agent, env)
    run = runner.init(jax.random.key(0))
    compiling = runner.compile(run)
    run, _ = runner.advance(run, learning)
    before, began = int(run.state.counts.updates), time.perf_counter()
    run, metrics = runner.advance(run, turns)
    jax.block_until_ready(run)
    seconds = time.perf_counter() - began
    evaluations = (int(run.state.counts.updates) - before) * agent.experience.streams
    steps = turns * agent.experience.unroll * agent.experience.streams
    mean = float(metrics.tally.returns / jnp.maximum(metrics.tally.episodes, 1))
    weights = sum(x.size for x in jax.tree.leaves(run.state.net))
    return {
        "evaluations_per_second": round(evaluations / seconds, 1), "steps_per_second": round(steps / seconds),
        "compile_seconds": round(compiling, 2), "weights": weights, "mean_return": round(mean, 1),
    }  # fmt: skip


def main() -> None:
    found = {name: measured(*case) for name, case in CASES.items()}
    for name, figures in found.items():
        print(name, figures)
    report = {"hardware": machine.hardware(), "versions": machine.versions(), "population": POPULATION, "cases": found}
    atomic_write(machine.RESULTS / "search.json", json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
