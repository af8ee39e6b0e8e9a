"""The one training loop, around any runner: progress, evaluation, checkpoints, faults, the policy that comes of it."""

import dataclasses
import signal
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yozh.agents import statistics
from yozh.agents.base import GradientAgent
from yozh.agents.schedules import over
from yozh.core import Agent, BatchedEnv, YozhError, require
from yozh.environments import for_judging, make
from yozh.networks.dead import dead_units
from yozh.runners import evaluation
from yozh.runners.archive import Archive
from yozh.runners.compiler import make_room
from yozh.runners.fused import QUANTITIES, Fused, Metrics, Run
from yozh.runners.hosted import Hosted
from yozh.runners.memory import for_host
from yozh.runners.observers import Observer, Stop
from yozh.runners.plan import Plan, Progress
from yozh.runners.policy import Policy
from yozh.runners.replayed import replayed
from yozh.settings import describe

BEAT = 1.0
"""Seconds between two looks at a run, at the most."""

LOOKS = 100
"""Looks at a run, at the least."""

SEEN = 512
"""Observations by which units are judged dead or alive."""

ROLLBACKS = 3
"""How often a run may go back to its last checkpoint before it is given up."""


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


def train(agent: Agent, env: Any, plan: Plan, *, name: str, backend: str | None = None, out: Path | None = None,
          observers: Sequence[Observer] = ()) -> Trained:  # fmt: skip
    """Trains an agent as planned. `env` is whatever `yozh.make` takes.

    With a folder `out` there are checkpoints in it, `policy.safetensors`, and `best.safetensors`, the policy of the best
    evaluation. Raises `Diverged` on the first number that is not finite, unless the plan is to roll back.
    """
    training = Training(agent, env, plan, name=name, backend=backend, out=out, observers=observers)
    try:
        return training.whole()
    finally:
        training.close()


def resume(agent: Agent, env: Any, plan: Plan, *, name: str, backend: str | None, out: Path, about: dict[str, Any],
           tensors: dict[str, np.ndarray], path: Path, observers: Sequence[Observer] = ()) -> Trained:  # fmt: skip
    """Goes on from a checkpoint that `checkpoint.newest` has read."""
    training = Training(agent, env, plan, name=name, backend=backend, out=out, observers=observers)
    try:
        return training.whole(resumed=(path, about, tensors))
    finally:
        training.close()


class Training:
    """One run of the loop."""

    def __init__(self, agent: Agent, env: Any, plan: Plan, *, name: str, backend: str | None, out: Path | None,
                 observers: Sequence[Observer]):  # fmt: skip
        make_room()
        self.given, self.agent = agent, over(agent, plan.steps)
        self.plan, self.out, self.observers = plan, out, observers
        self.eval_every = plan.eval_every or -(-plan.steps // 5)
        require(out is not None or plan.on_nan == "stop", "rolling back needs checkpoints, and these a folder: out=...")
        streams, own = agent.experience.streams, dict(plan.env_options)
        options = own | ({"workers": plan.workers} if plan.workers else {})
        self.env = make(env, streams, backend=backend, **options)
        if isinstance(self.env, BatchedEnv) and not self.env.pure and for_host(agent, self.env.spec) is not None:
            self.env = make(env, streams, backend=backend, hosted=True, **options)  # for the replay's sake
        jax.eval_shape(lambda: self.agent.init(jax.random.key(0), self.env.spec))  # refuses spaces before compiling
        self.judged = for_judging(env, own)
        self.judge = make(env, evaluation.streams(plan.eval_episodes), backend=backend, **self.judged)
        if isinstance(self.env, BatchedEnv):
            require(
                not plan.lag, f"lag {plan.lag} is for hosted environments; {self.env.backend} acts inside the program"
            )
            self.runner = Fused(self.agent, self.env)
        else:
            lag = min(1, agent.experience.max_lag) if plan.lag is None else plan.lag
            self.runner = Hosted(self.agent, self.env, lag)
        self.about = {
            "agent": name,
            "env": env if isinstance(env, str) else getattr(env, "__name__", type(env).__name__),
            "backend": self.env.backend,
            "runner": type(self.runner).__name__.lower(),
            "seed": plan.seed,
            **({"env_options": own} if own else {}),
        }
        self.env_named = isinstance(env, str)
        self.progress = Progress(due=self.eval_every)
        told = lambda row: self._tell("on_checkpoint", row)  # noqa: E731
        self.archive = None if out is None else Archive(out, plan, told)
        self.stopped: str | None = None

    def whole(self, resumed: tuple[Path, dict[str, Any], dict[str, np.ndarray]] | None = None) -> Trained:
        began = time.perf_counter()
        if self.archive is not None:  # only now, when nothing speaks against the run any more
            self.archive.open()
        if resumed is not None:
            self._restore(*resumed)
        asked = {"steps": self.plan.steps, "envs": self.agent.experience.streams, "eval_every": self.eval_every,
                 "eval_episodes": self.plan.eval_episodes, "lag": getattr(self.runner, "lag", 0)}  # fmt: skip
        since = {"resumed": dataclasses.asdict(self.progress)} if resumed is not None else {}
        self._tell(
            "on_start", self.about | asked | since | {"object": self.agent, "plan": dataclasses.asdict(self.plan)}
        )
        if resumed is None:
            self.run = self.runner.init(jax.random.key(self.plan.seed))
            if self.plan.on_nan == "rollback":
                self._checkpoint()
        if self.archive is not None:
            self.archive.begin(self.runner, self.progress)
        self.runner.compile(self.run)
        self.progress.compile_seconds += time.perf_counter() - began
        self._tell("on_compile", time.perf_counter() - began)
        failure: Exception | None = None
        with _Interrupt() as interrupt:
            try:
                status = self._loop(interrupt)
            except Exception as error:  # an environment's, most likely: what was learnt is worth keeping
                status, failure = "failed", error
        policy = self._policy()
        if self.archive is not None:
            self.archive.keep(policy, "policy.safetensors")
        if status != "diverged":
            self._checkpoint()
        evaluated = self._final() if status in ("finished", "stopped") else None
        counts, seconds = self.run.state.counts, self.progress.train_seconds
        summary = self.about | {
            "steps": int(counts.steps),
            "updates": int(counts.updates),
            "compile_seconds": round(self.progress.compile_seconds, 2),
            "train_seconds": round(seconds, 2),
            "steps_per_second": round(int(counts.steps) / max(seconds, 1e-9), 1),
            "status": status,
            **({"stopped": self.stopped} if status == "stopped" else {}),
            **({"rollbacks": self.progress.rollbacks} if self.progress.rollbacks else {}),
            "evaluation": evaluated,
        }
        if self.archive is not None:
            self.archive.wait()
        self._tell("on_end", summary)
        trained = Trained(policy, summary, self.out, self.run)
        if failure is not None:
            raise failure
        if status == "diverged":
            kept = "" if self.out is None else f"; what was learnt before is in {self.out / 'policy.safetensors'}"
            raise Diverged(self._fault() + kept, trained)
        return trained

    def _loop(self, interrupt: "_Interrupt") -> str:
        """Until the steps are done, in stretches of at most a second that end where an evaluation is due."""
        experience, progress, total = self.agent.experience, self.progress, self.plan.steps
        turn, pace = experience.streams * experience.unroll, 1.0
        while progress.steps < total:
            if progress.steps >= progress.due:
                self.evaluate(-(-self.plan.eval_episodes // 10))
                progress.due += self.eval_every
            if self.stopped is not None:
                return "stopped"
            left = min(progress.due, total, progress.steps + total // LOOKS) - progress.steps
            turns = max(1, min(int(pace * BEAT), -(-left // turn)))
            began, spent = time.perf_counter(), self._spent()
            self.run, metrics = self.runner.advance(self.run, turns)
            jax.block_until_ready(self.run)
            seconds = time.perf_counter() - began
            progress.train_seconds += seconds
            pace = min(turns / seconds, 8 * pace)
            before, progress.steps = progress.steps, int(self.run.state.counts.steps)
            shares = {k: (v - spent[k]) / seconds for k, v in self._spent().items()}
            self._tell("on_iteration", self._row(metrics, (progress.steps - before) / seconds) | shares)
            if int(self.run.fault.quantity):
                if not self._roll_back():
                    return "diverged"
            elif interrupt.asked:
                return "interrupted"
            elif self.archive is not None and self.archive.is_due(progress):
                self._checkpoint()
        return "finished"

    def _row(self, metrics: Metrics, rate: float) -> dict[str, Any]:
        episodes = int(metrics.tally.episodes)
        row = {
            "steps": self.progress.steps,
            "total_steps": self.plan.steps,
            "updates": int(self.run.state.counts.updates),
            "seconds": round(self.progress.train_seconds, 3),
            "steps_per_second": round(rate, 1),
        }
        if episodes:
            returns, lengths = float(metrics.tally.returns), float(metrics.tally.lengths)
            row |= {"return_mean": returns / episodes, "length_mean": lengths / episodes, "episodes": episodes}
        return row | ({k: float(v) for k, v in metrics.report.items()} if int(metrics.updates) else {})

    def _spent(self) -> dict[str, float]:
        """Seconds that a hosted run spent on each thing; of a fused one nothing can be told."""
        return {f"time_{k}": v for k, v in self.runner.seconds.items()} if isinstance(self.runner, Hosted) else {}

    def _final(self) -> dict[str, Any]:
        return {k: v for k, v in self.evaluate(self.plan.eval_episodes).items() if k not in ("returns", "dead_units")}

    def evaluate(self, episodes: int) -> dict[str, Any]:
        """Measures the policy as it is now, in environments and from a seed of their own; keeps it if it is the best so far."""
        progress = self.progress
        params, seed = self.agent.policy(self.run.state), (self.plan.seed * 1_000_003 + progress.steps) % (2**31 - 1)
        began = time.perf_counter()
        found = evaluation.evaluate(self.agent, params, self.judge, episodes=episodes, seed=seed)
        took = round(time.perf_counter() - began, 3)
        progress.evaluated = progress.steps
        if progress.best is None or found["mean_return"] > progress.best:
            progress.best = found["mean_return"]
            if self.archive is not None:
                self.archive.keep(self._policy(), "best.safetensors")
        if (dead := self._dead_units()) is not None:
            found["dead_units"] = dead
        row = {"steps": progress.steps, "seconds": round(progress.train_seconds, 3), "took": took, "evaluation": found}
        if (replay := replayed(self.agent, self.runner, self.run)) is not None:
            row["replay"] = replay
        self._tell("on_evaluation", row)
        return found

    def _dead_units(self) -> float | None:
        """The share of the network's ReLU units that no recent observation wakes."""
        seen = self.agent.experience.store.recent(self.run.store, SEEN) if jax.tree.leaves(self.run.store) else None
        state = self.run.state
        if seen is None or not isinstance(self.agent, GradientAgent):
            return None
        return dead_units(state.net, statistics.normalise(state.statistics, seen))

    def _policy(self) -> Policy:
        params, env = self.agent.policy(self.run.state), self.about["env"]
        return Policy(self.agent, params, self.env.spec, env, env_options=self.judged)

    def _checkpoint(self) -> None:
        if self.archive is not None:
            about = self.about | {"settings": describe(self.given), "env_named": self.env_named}
            self.archive.checkpoint(self.runner, self.run, self.progress, about)

    def _restore(self, path: Path, about: dict[str, Any], tensors: dict[str, np.ndarray], rollbacks: int = 0) -> None:
        assert self.archive is not None, "checked at the start"
        self.run, self.progress = self.archive.restore(self.runner, path, about, tensors, rollbacks)

    def _roll_back(self) -> bool:
        """Takes the last checkpoint up again under another key; whether there was one, and patience left."""
        if self.plan.on_nan == "stop" or self.progress.rollbacks >= ROLLBACKS:
            return False
        assert self.archive is not None, "checked at the start"
        newest = self.archive.newest()
        if newest is None:
            return False
        times, why = self.progress.rollbacks + 1, self._fault()
        self._restore(*newest, rollbacks=times)
        self.progress.rollbacks = times
        warnings.warn(f"{why}; back to step {self.progress.steps:,} ({times} of {ROLLBACKS} times)", stacklevel=2)
        return True

    def _fault(self) -> str:
        fault, experience = self.run.fault, self.agent.experience
        step, stream = int(fault.step), int(fault.stream)
        where = f" in stream {stream}" if stream >= 0 else ""
        until = step + experience.streams * experience.unroll
        return f"{QUANTITIES[int(fault.quantity)]} is not finite{where} between steps {step:,} and {until:,}"

    def _tell(self, event: str, what: Any) -> None:
        for observer in self.observers:
            try:
                getattr(observer, event)(what)
            except Stop as stop:
                self.stopped = self.stopped or str(stop)

    def close(self) -> None:
        self.runner.close()
        if self.archive is not None:
            self.archive.close()
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
