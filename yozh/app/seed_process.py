"""Seeds in processes of their own: what one of them does, and the loop that starts, hears and stops them."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from yozh.app import face
from yozh.app.folder import as_json
from yozh.app.report import publish, write_report
from yozh.app.resume import resume
from yozh.app.seed_group import DONE, Group
from yozh.core import YozhError
from yozh.files import Lock
from yozh.runners import checkpoint
from yozh.runners.observers import Observer
from yozh.runners.training import Trained, _Interrupt
from yozh.settings import build

PAUSE = 0.2
"""Seconds after which the loop looks up, whether or not a process said something."""

Heard = Callable[[int, str, Any], None]
"""Told the seed, the name of the event, and what an observer is told."""


def train_one(asked: dict[str, Any], seed: int, out: Path, observers: Sequence[Observer]) -> Trained:
    """Trains one seed, from its last checkpoint where it has one."""
    if checkpoint.existing(out / "checkpoints"):
        return resume(out, agent=asked["agent"], env=asked["env"], observers=observers)
    return face.train(**asked, seed=seed, out=out, observers=observers)


def show(out: Path) -> None:
    """Writes the report of one seed, with a film if it is done."""
    summary = out / "summary.json"
    if summary.exists():
        (publish if json.loads(summary.read_text(encoding="utf-8"))["status"] in DONE else write_report)(out)


def train_apart(group: Group, lock: Lock, asked: dict[str, Any], jobs: int, heard: Heard) -> bool:
    """Trains the seeds that are left, `jobs` at a time; returns whether it was interrupted.

    `asked` are the arguments of `yozh.train`, described. What goes wrong in one process stands in `group.errors`.
    """
    waiting, running = list(group.left), dict[int, subprocess.Popen]()
    said: queue.SimpleQueue[tuple[int, str | None]] = queue.SimpleQueue()
    told = False
    with _Interrupt() as interrupt:
        try:
            while running or (waiting and not interrupt.asked):
                while waiting and len(running) < jobs and not interrupt.asked:
                    seed = waiting.pop(0)
                    running[seed] = _start(group, lock, seed, asked, said)
                if interrupt.asked and not told:
                    told = True
                    for child in running.values():
                        child.send_signal(signal.SIGINT)
                try:
                    seed, line = said.get(timeout=PAUSE)
                except queue.Empty:
                    continue
                if line is not None:
                    heard(seed, *json.loads(line))
                    continue
                _ended(group, seed, running.pop(seed).wait(), interrupt.asked)
        finally:
            for child in running.values():
                child.kill()
    return interrupt.asked


def _start(group: Group, lock: Lock, seed: int, asked: dict[str, Any], said: queue.SimpleQueue) -> subprocess.Popen:
    with open(_log(group, seed), "wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "yozh.app.seed_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, encoding="utf-8",
            start_new_session=True,  # Ctrl-C reaches the parent alone, which passes it on once
            pass_fds=(lock.fileno(),),
        )  # fmt: skip
    assert child.stdin and child.stdout
    try:
        with child.stdin as stdin:
            json.dump({"asked": asked, "seed": seed, "out": str(group.folder(seed)), "path": sys.path}, stdin)
    except BrokenPipeError:
        pass  # it is gone already, and its log says why
    threading.Thread(target=_listen, args=(seed, child.stdout, said), daemon=True).start()
    return child


def _listen(seed: int, lines: Iterable[str], said: queue.SimpleQueue) -> None:
    try:
        for line in lines:
            said.put((seed, line))
    finally:
        said.put((seed, None))


def _ended(group: Group, seed: int, code: int, interrupted: bool) -> None:
    log = _log(group, seed)
    if code == 0 or interrupted:
        log.unlink()
    else:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        group.errors[seed] = f"{lines[-1] if lines else how} (see {log})"
    group.write_summary()


def _log(group: Group, seed: int) -> Path:
    return group.path / f"seed-{seed}.log"


class _Relay(Observer):
    """Writes every event as a line of JSON. A parent that is gone breaks the run off."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def on_start(self, info: dict[str, Any]) -> None:
        self._say("on_start", {k: v for k, v in info.items() if k != "object"})

    def on_compile(self, seconds: float) -> None:
        self._say("on_compile", seconds)

    def on_iteration(self, row: dict[str, Any]) -> None:
        self._say("on_iteration", row)

    def on_evaluation(self, row: dict[str, Any]) -> None:
        self._say("on_evaluation", row)

    def on_alarm(self, row: dict[str, Any]) -> None:
        self._say("on_alarm", row)

    def on_checkpoint(self, row: dict[str, Any]) -> None:
        self._say("on_checkpoint", row)

    def on_end(self, summary: dict[str, Any]) -> None:
        self._say("on_end", summary)

    def _say(self, event: str, what: Any) -> None:
        self._stream.write(as_json([event, what]) + "\n")
        self._stream.flush()


def main() -> int:
    """One seed: reads what is asked from standard input, trains, and writes the run folder with its report."""
    spec = json.load(sys.stdin)
    sys.path += [p for p in spec["path"] if p not in sys.path]
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an environment prints goes to the log
    asked = {name: build(value) for name, value in spec["asked"].items()}
    watching, out = (*asked.pop("observers"), _Relay(events)), Path(spec["out"])
    try:
        train_one(asked, spec["seed"], out, watching)
    except YozhError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        show(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
