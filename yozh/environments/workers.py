"""Gymnasium's environments in worker processes, that share memory with this one and may die."""

import functools
import mmap
import os
import time
import warnings
import weakref
from collections.abc import Callable
from select import POLLIN, poll
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from yozh import spaces
from yozh.core import Spec, TimeStep, YozhError, require
from yozh.environments import worker as child
from yozh.environments.declared import Keeping, fields
from yozh.environments.gymnasium import UNCHECKED, extra, maker, registered
from yozh.environments.host import Boundary, mask_apart, supported, without_mask
from yozh.environments.process import GRACE, Fallen, Misfit, Process
from yozh.environments.registry import imported

MAKING = 120.0
"""Seconds that a worker has to import and make its environments; `timeout` if that is longer."""


class Workers:
    """`n` streams of a Gymnasium environment in `processes` worker processes: one a core, if left out, and never more than `n`.

    `env` is an id, `module:function`, or a function, which may be a lambda; `options` go to `gymnasium.make`. Each worker steps its
    share of the streams one after the other. What comes of the same seeds and actions is what `GymnasiumHost` returns.

    A worker that dies, raises, or is busy with one step for more than `timeout` seconds is started again with a warning. The
    episodes that it was in are told as truncated (the last observation once more, reward 0), and new ones begin. After
    `restarts` such restarts of all workers together the next is a `YozhError` that tells them all. An environment that
    tells what its spaces do not allow, or a reward that is no number, is a `YozhError` at once.
    """

    backend = "gymnasium"

    def __init__(self, env: str | Callable[[], Any] | Any, n: int, processes: int | None = None, *, timeout: float = 60.0,
                 restarts: int = 3, **options: Any):  # fmt: skip
        require(processes is None or processes > 0, f"processes must be positive, not {processes}")
        require(timeout > 0, f"timeout must be positive, not {timeout}")
        require(restarts >= 0, f"restarts must not be negative, not {restarts}")
        env = imported(env) or env
        self._name, self._make = _packed(env, options)
        self._timeout, self._restarts, self._history = timeout, restarts, list[str]()
        self.batch: int = n
        shares = np.array_split(np.arange(n), min(n, processes or len(os.sched_getaffinity(0))))
        self._shares = [range(share[0], share[-1] + 1) for share in shares]
        self._memory = os.memfd_create("yozh-workers")  # has no name: nothing is left behind however this process ends
        self._crew: list[Process] = []
        self._busy: set[Process] = set()
        self._end = weakref.finalize(self, _end, self._crew, self._memory)
        try:
            self._prepare(extra(env))
        except BaseException:
            self.close()
            raise

    def _prepare(self, hint: str) -> None:
        for k, share in enumerate(self._shares):
            self._crew.append(Process(k, share, self._make, self._memory))
        told: list[tuple[tuple[Any, Any], tuple[int, ...] | None, int | None]] = []
        try:
            for worker in self._crew:
                told.append(worker.hello(max(self._timeout, MAKING)))
        except Fallen as fallen:
            lacks = fallen.kind == "DependencyNotInstalled"
            what = f"{fallen.message}{hint}" if lacks else f"worker {len(told)} {fallen} before the first step"
            raise YozhError(f"{self._name}: {what}") from None
        self._spaces: tuple[Any, Any] = told[0][0]
        mask = next((mask for _, mask, _ in told if mask is not None), None)
        self._check_spaces([each for each, _, _ in told])
        observation, self._mask_seen = without_mask(supported(self._name, self._spaces[0]))
        self.spec: Spec = Spec(
            observation, supported(self._name, self._spaces[1]), self._mask_seen or mask is not None, told[0][2]
        )
        self._layout: tuple[int, int, tuple[int, ...] | None] = (
            self.batch,
            len(self._crew),
            None if self._mask_seen else mask,
        )
        os.ftruncate(self._memory, child.Block(None, *self._spaces, *self._layout).size)
        self._block = child.Block(mmap.mmap(self._memory, 0), *self._spaces, *self._layout)
        for worker in self._crew:
            worker.ask(self._layout)
        self._boundary, self._keeping = Boundary(self.batch), Keeping(self._name, observation)
        self._opens = np.ones(self.batch, bool)  # the streams that open an episode in the round under way
        self._seed = self._steps = 0
        self._copy()

    def reset(self, seed: int) -> TimeStep:
        self._finish()
        self._seed, self._steps, self._opens = seed, 0, np.ones(self.batch, bool)
        self._block.todo[:] = child.RESET
        self._block.seed[:] = seed + np.arange(self.batch)
        self._go()
        self._finish()
        self._opens = np.zeros(self.batch, bool)
        return self._boundary.opened(*self._arrived())

    def send(self, action: PyTree) -> None:
        widened = spaces.widen(self._spaces[1], action)
        jax.tree.map(np.copyto, self._block.action, widened)
        self._steps += 1
        self._go()

    def recv(self) -> TimeStep:
        self._finish()
        block, (obs, extras) = self._block, self._arrived()
        step = self._boundary.moved(obs, block.reward, block.terminated, block.truncated, extras)
        self._opens = np.asarray(step.last)
        return step

    def close(self) -> None:
        """Ends the workers, by force where they do not go."""
        self._end()
        self._busy = set()

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [worker.process.pid for worker in self._crew]

    def _go(self) -> None:
        require(self._end.alive, f"{self._name}: its workers are closed")
        for worker in self._crew:
            worker.say(child.GO)
        self._busy = set(self._crew)

    def _finish(self) -> None:
        """Waits until every worker has done what it was told."""
        seen: dict[Process, tuple[int, float]] = {}
        while self._busy:
            crew = {worker.answers.fileno(): worker for worker in self._busy}
            ready = poll()
            for fd in crew:
                ready.register(fd, POLLIN)
            answered = ready.poll(100 * self._timeout)
            for fd, _ in answered:
                try:
                    crew[fd].answer()
                    self._busy.discard(crew[fd])
                except Fallen as fallen:
                    self._restart(crew[fd], str(fallen))
                except Misfit as misfit:
                    raise self._refusal(crew[fd], misfit.what) from None
            for worker in () if answered else tuple(self._busy):
                at, now = int(self._block.at[worker.number]), time.monotonic()
                stream, since = seen.setdefault(worker, (at, now))
                if stream != at:
                    seen[worker] = at, now
                elif now - since > self._timeout:
                    self._restart(worker, worker.hung(self._timeout))

    def _restart(self, worker: Process, what: str) -> None:
        """Puts another worker in the place of one that fell, and has it carry out what is left of this round."""
        k, block, allowed = worker.number, self._block, self._restarts
        share = self._shares[k]
        told = f"worker {k} {what}, at step {self._steps:,} of stream {block.at[k]}"
        worker.end(0.0)
        while True:
            self._history.append(told)
            if len(self._history) > allowed:
                self.close()
                raise YozhError(
                    f"{self._name}: {'; '.join(self._history)}; no more than {allowed} restarts are allowed"
                )
            warnings.warn(
                f"{self._name}: {told}; it is started again, and streams {share[0]} to {share[-1]} begin new episodes "
                f"(restart {len(self._history)} of {allowed})",
                stacklevel=4,
            )
            self._crew[k] = fresh = Process(k, share, self._make, self._memory)
            try:
                same, _, _ = fresh.hello(max(self._timeout, MAKING))
                break
            except Fallen as fallen:
                fresh.end(0.0)
                told = f"worker {k} {fallen}, when it was started again"
        self._check_spaces([same])
        rows = slice(share[0], share[-1] + 1)
        block.todo[rows] = np.where(self._opens[rows], child.RESET, child.REST)
        block.seed[rows] = self._seed + self.batch * len(self._history) + np.arange(rows.start, rows.stop)
        block.reward[rows], block.terminated[rows], block.truncated[rows] = 0, False, True
        jax.tree.map(lambda now, before: np.copyto(now[rows], before[rows]), (block.obs, block.legal), self._copied)
        fresh.ask(self._layout)
        fresh.say(child.GO)
        self._busy = (self._busy - {worker}) | {fresh}

    def _refusal(self, worker: Process, what: Any) -> YozhError:
        self.close()
        if not isinstance(what, str):
            why = ((field.name, field.misfit(what)) for field in fields(self._spaces[0]))
            what = next((f"{name} {text}" for name, text in why if text), "the observation does not fit its space")
        return YozhError(f"{self._name}: {what}, at step {self._steps:,} of stream {self._block.at[worker.number]}")

    def _check_spaces(self, told: list[Any]) -> None:
        for each in told:
            require(
                each == self._spaces, f"{self._name}: its spaces differ from worker to worker: {each}, {self._spaces}"
            )

    def _copy(self) -> None:
        self._copied = jax.tree.map(np.copy, (self._block.obs, self._block.legal))

    def _arrived(self) -> tuple[PyTree, dict[str, Any]]:
        """The observations and `extras` of the round; none of it is the shared memory, which the next round writes over."""
        self._copy()
        obs, legal = self._copied
        obs = spaces.narrow(self._spaces[0], obs)
        obs, extras = mask_apart(obs) if self._mask_seen else (obs, {} if legal is None else {"legal": legal})
        self._keeping.look(obs, self._steps)
        return obs, extras


def _end(crew: list[Process], memory: int) -> None:
    present = [worker for worker in crew if not worker.answers.closed]
    for worker in present:
        worker.say(child.END)
    deadline = time.monotonic() + GRACE
    for worker in present:
        worker.end(max(0.0, deadline - time.monotonic()))
    os.close(memory)


def _packed(env: Any, options: dict[str, Any]) -> tuple[str, bytes]:
    """The environment's name, and the function that makes one, as bytes."""
    import cloudpickle
    import gymnasium

    if isinstance(env, str):
        require(registered(env), f"Gymnasium has no environment {env!r}")
        # the entry itself: what this process registered is not registered in a worker
        name, make = env, functools.partial(gymnasium.make, gymnasium.spec(env), **UNCHECKED | options)
    else:
        made = isinstance(env, gymnasium.vector.VectorEnv)
        require(not made, lambda: f"{env} is made already, and workers make their own: give an id or a function")
        make, name = maker(env, options)
    try:
        return name, cloudpickle.dumps(make)
    except Exception as error:
        raise YozhError(f"{name} cannot be sent to a worker process: {error}") from None
