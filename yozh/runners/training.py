"""The one training loop, around any runner: progress, evaluation, faults, the policy that comes of it."""

import dataclasses
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from yozh.agents.schedules import over
from yozh.core import Agent, BatchedEnv, YozhError, require
from yozh.environments import make
from yozh.runners import evaluation
from yozh.runners.fused import QUANTITIES, Fused, Metrics, Run
from yozh.runners.hosted import Hosted
from yozh.runners.observers import Observer
from yozh.runners.policy import Policy

BEAT = 1.0
"""Seconds between two looks at a run, at the most."""

LOOKS = 100
"""Looks at a run, at the least."""


@dataclasses.dataclass
class Trained:
    """What a run came to."""

    policy: Policy
    summary: dict[str, Any]
    """As in `summary.json`."""
    path: Path | None
    """The run's folder."""
    run: Run
    """Everything that learning would need to go on."""


class Diverged(YozhError):
    """A number was not finite. What was learnt before it is kept in `trained`."""

    def __init__(self, message: str, trained: Trained):
        super().__init__(message)
        self.trained = trained


def train(agent: Agent, env: Any, *, steps: int, name: str, seed: int = 0, backend: str | None = None, out: Path | None = None,
          eval_every: int | None = None, eval_episodes: int = 100, observers: Sequence[Observer] = ()) -> Trained:  # fmt: skip
    """Trains an agent for a number of environment steps, evaluating every `eval_every` of them (a fifth of the run if left out; a tenth of
    the episodes) and at the end.

    `env` is whatever `yozh.make` takes. Raises `Diverged` on the first number that is not finite.
    """
    training = Training(agent, env, steps=steps, name=name, seed=seed, backend=backend, out=out,
                        eval_every=eval_every, eval_episodes=eval_episodes, observers=observers)  # fmt: skip
    try:
        return training.whole()
    finally:
        training.close()


class Training:
    """One run of the loop."""

    def __init__(self, agent: Agent, env: Any, *, steps: int, name: str, seed: int, backend: str | None, out: Path | None,
                 eval_every: int | None, eval_episodes: int, observers: Sequence[Observer]):  # fmt: skip
        require(eval_episodes > 0, f"eval_episodes must be positive, not {eval_episodes}")
        require(eval_every is None or eval_every > 0, f"eval_every must be positive, not {eval_every}")
        self.agent, self.total, self.seed, self.out = over(agent, steps), steps, seed, out
        self.eval_every, self.eval_episodes, self.observers = eval_every or -(-steps // 5), eval_episodes, observers
        self.env = make(env, agent.experience.streams, backend=backend)
        jax.eval_shape(
            lambda: self.agent.init(jax.random.key(0), self.env.spec)
        )  # refuses spaces before anything compiles
        self.judge = make(env, evaluation.streams(eval_episodes), backend=backend)
        self.runner = Fused(self.agent, self.env) if isinstance(self.env, BatchedEnv) else Hosted(self.agent, self.env)
        self.about = {
            "agent": name,
            "env": env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__),
            "backend": self.env.backend,
            "runner": type(self.runner).__name__.lower(),
            "seed": seed,
        }
        self.compile_seconds = self.train_seconds = 0.0

    def whole(self) -> Trained:
        asked = {
            "steps": self.total,
            "envs": self.env.batch,
            "eval_every": self.eval_every,
            "eval_episodes": self.eval_episodes,
        }
        self._tell("on_start", self.about | asked | {"object": self.agent})
        began = time.perf_counter()
        self.run = self.runner.init(jax.random.key(self.seed))
        self.runner.compile(self.run)
        self.compile_seconds = time.perf_counter() - began
        self._tell("on_compile", self.compile_seconds)
        with _Interrupt() as interrupt:
            status = self._loop(interrupt)
        policy = Policy(self.agent, self.agent.policy(self.run.state), self.env.spec, self.about["env"])
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            policy.save(self.out / "policy.safetensors")
        counts = self.run.state.counts
        summary = self.about | {
            "steps": int(counts.steps),
            "updates": int(counts.updates),
            "compile_seconds": round(self.compile_seconds, 2),
            "train_seconds": round(self.train_seconds, 2),
            "steps_per_second": round(int(counts.steps) / max(self.train_seconds, 1e-9), 1),
            "status": status,
            "evaluation": self._final() if status == "finished" else None,
        }
        self._tell("on_end", summary)
        trained = Trained(policy, summary, self.out, self.run)
        if status == "diverged":
            raise Diverged(self._fault(), trained)
        return trained

    def _loop(self, interrupt: "_Interrupt") -> str:
        """Until the steps are done, in stretches of at most a second that end where an evaluation is due."""
        experience = self.agent.experience
        turn, taken, pace = experience.streams * experience.unroll, 0, 1.0
        due = self.eval_every
        while taken < self.total:
            if taken >= due:
                self.evaluate(-(-self.eval_episodes // 10))
                due += self.eval_every
            left = min(due, self.total, taken + self.total // LOOKS) - taken
            turns = max(1, min(int(pace * BEAT), -(-left // turn)))
            began = time.perf_counter()
            self.run, metrics = self.runner.advance(self.run, turns)
            jax.block_until_ready(self.run)
            seconds = time.perf_counter() - began
            self.train_seconds += seconds
            pace = min(turns / seconds, 8 * pace)
            before, taken = taken, int(self.run.state.counts.steps)
            self._tell("on_iteration", self._row(metrics, taken, (taken - before) / seconds))
            if int(self.run.fault.quantity):
                return "diverged"
            if interrupt.asked:
                return "interrupted"
        return "finished"

    def _row(self, metrics: Metrics, taken: int, rate: float) -> dict[str, Any]:
        episodes = int(metrics.tally.episodes)
        row = {
            "steps": taken,
            "total_steps": self.total,
            "updates": int(self.run.state.counts.updates),
            "seconds": round(self.train_seconds, 3),
            "steps_per_second": round(rate, 1),
        }
        if episodes:
            returns, lengths = float(metrics.tally.returns), float(metrics.tally.lengths)
            row |= {"return_mean": returns / episodes, "length_mean": lengths / episodes, "episodes": episodes}
        return row | ({k: float(v) for k, v in metrics.report.items()} if int(metrics.updates) else {})

    def _final(self) -> dict[str, Any]:
        return {k: v for k, v in self.evaluate(self.eval_episodes).items() if k != "returns"}

    def evaluate(self, episodes: int) -> dict[str, Any]:
        """Measures the policy as it is now, in environments and from a seed of their own."""
        taken = int(self.run.state.counts.steps)
        seed = (self.seed * 1_000_003 + taken) % (2**31 - 1)
        found = evaluation.evaluate(
            self.agent, self.agent.policy(self.run.state), self.judge, episodes=episodes, seed=seed
        )
        self._tell("on_evaluation", {"steps": taken, "seconds": round(self.train_seconds, 3), "evaluation": found})
        return found

    def _fault(self) -> str:
        fault, experience = self.run.fault, self.agent.experience
        step, stream = int(fault.step), int(fault.stream)
        where = f" in stream {stream}" if stream >= 0 else ""
        until = step + experience.streams * experience.unroll
        kept = "" if self.out is None else f"; what was learnt before is in {self.out / 'policy.safetensors'}"
        return f"{QUANTITIES[int(fault.quantity)]} is not finite{where} between steps {step:,} and {until:,}{kept}"

    def _tell(self, event: str, what: Any) -> None:
        for observer in self.observers:
            getattr(observer, event)(what)

    def close(self) -> None:
        self.env.close()
        self.judge.close()


class _Interrupt:
    """Turns the first SIGINT or SIGTERM into a wish to stop; the second one interrupts."""

    def __enter__(self) -> "_Interrupt":
        self.asked = False
        self._old: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self._old = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *error: Any) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
