"""Several seeds abreast in one compiled program: a loop of training for each, which meet wherever they advance."""

import dataclasses
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Key, PyTree

from yozh.app.face import alarmed
from yozh.app.folder import RunFolder
from yozh.app.seed_group import Group
from yozh.core import YozhError
from yozh.files import atomic_write
from yozh.runners.compiler import OPTIONS
from yozh.runners.fused import Fused, Metrics, Run, advance
from yozh.runners.observers import Observer
from yozh.runners.plan import Plan
from yozh.runners.training import Training, _Interrupt


def train_abreast(group: Group, asked: dict[str, Any], plan: Plan, observers: Callable[[int], Sequence[Observer]]) -> bool:  # fmt: skip
    """Trains the seeds that are left; returns whether it was interrupted.

    `asked` are the arguments of a `Training` in a pure environment, but for its plan, folder and observers. What goes
    wrong with one seed stands in `group.errors`, and the others go on.
    """
    lanes: dict[int, _Lane] = {}
    with _Interrupt() as interrupt:
        try:
            for seed in group.left:
                out = group.folder(seed)
                watching = alarmed((*observers(seed), RunFolder(out)), f"seed {seed}, ")
                lanes[seed] = _Lane(interrupt, **asked, plan=dataclasses.replace(plan, seed=seed), out=out, observers=watching)  # fmt: skip
            together = _Together(list(lanes.values()))
            threads = [threading.Thread(target=_train, args=(group, together, lane), daemon=True) for lane in lanes.values()]  # fmt: skip
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            for lane in lanes.values():
                lane.close()
    return interrupt.asked


class _Lane(Training):
    """The loop of one seed. Its runner advances it with the others."""

    def __init__(self, interrupt: _Interrupt, **asked: Any):
        super().__init__(**asked)
        self._shared = interrupt  # signals reach the main thread only
        self.about["runner"] = "vectorised"

    def _loop(self, interrupt: _Interrupt) -> str:
        return super()._loop(self._shared)


def _train(group: Group, together: "_Together", lane: _Lane) -> None:
    lane.runner = _Runner(together, lane)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        lane.whole()
    except YozhError as error:
        group.errors[lane.plan.seed] = str(error)
    except Exception as error:  # whatever it is, the other seeds go on
        log = group.path / f"seed-{lane.plan.seed}.log"
        atomic_write(log, traceback.format_exc())
        group.errors[lane.plan.seed] = f"{type(error).__name__}: {error} (see {log})"
    finally:
        together.leave(lane)


class _Runner:
    """What a loop of training asks of a runner, answered for all lanes at once."""

    def __init__(self, together: "_Together", lane: _Lane):
        self._together, self._lane = together, lane

    def init(self, key: Key[jax.Array, ""]) -> Run:
        return Fused(self._lane.agent, self._lane.env).init(key)  # pyright: ignore[reportArgumentType]

    def compile(self, run: Run) -> None:
        self._together.meet(self._lane, run)

    def advance(self, run: Run, n: int) -> tuple[Run, Metrics]:
        """At most `n` turns: as many as every lane can take."""
        return self._together.meet(self._lane, n)

    def close(self) -> None:
        """Nothing runs in between."""


class _Together:
    """Where lanes wait for each other. The last one to come carries out what all have asked for."""

    def __init__(self, lanes: list[_Lane]):
        self._agent, self._env = lanes[0].agent, lanes[0].env
        self._here, self._asked, self._answers = set(map(id, lanes)), dict[int, Any](), dict[int, Any]()
        self._order: list[int] = []
        self._change = threading.Condition()

    def meet(self, lane: _Lane, what: Any) -> Any:
        with self._change:
            self._asked[id(lane)] = what
            self._answer()
            self._change.wait_for(lambda: id(lane) in self._answers)
            answer = self._answers.pop(id(lane))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def leave(self, lane: _Lane) -> None:
        with self._change:
            self._here.discard(id(lane))
            self._answer()

    def _answer(self) -> None:
        if not self._here or set(self._asked) != self._here:
            return
        try:
            answers = self._advance() if self._order else self._compile()
        except Exception as error:
            answers = dict.fromkeys(self._asked, error)
        self._answers |= answers
        self._asked.clear()
        self._change.notify_all()

    def _compile(self) -> dict[int, None]:
        self._order = list(self._asked)
        self._runs = jax.tree.map(lambda *x: jnp.stack(x), *self._asked.values())
        program = jax.jit(jax.vmap(advance, in_axes=(None, None, 0, None)), donate_argnums=2, compiler_options=OPTIONS)
        self._program = program.lower(self._agent, self._env, self._runs, jnp.int32(0)).compile()
        return dict.fromkeys(self._order)

    def _advance(self) -> dict[int, tuple[Run, Metrics]]:
        self._runs, metrics = self._program(self._agent, self._env, self._runs, jnp.int32(min(self._asked.values())))
        return {lane: _part((self._runs, metrics), jnp.int32(self._order.index(lane))) for lane in self._asked}


@jax.jit
def _part(stacked: PyTree, i: jax.Array) -> PyTree:
    return jax.tree.map(lambda x: x[i], stacked)
