"""A worker process of `Workers`, seen from the parent: two pipes, what it says, and how it ended."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from yozh.environments import worker

GRACE = 2.0
"""Seconds that a worker has to close its environments before it is killed."""

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class Fallen(Exception):
    """A worker is of no more use; the text says what happened, in words that follow its name."""

    def __init__(self, text: str, kind: str = "", message: str = ""):
        super().__init__(text)
        self.kind, self.message = kind, message


class Misfit(Exception):
    """An environment told what is no step: a text, or an observation that is not in its space."""

    def __init__(self, what: Any):
        self.what = what


class Process:
    """One worker process, as the parent has it."""

    def __init__(self, number: int, share: range, make: bytes, memory: int):
        self.number = number
        command, orders = os.pipe()
        answers, answer = os.pipe()
        self.answers, self._orders = Connection(answers, writable=False), Connection(orders, readable=False)
        self._notes = os.memfd_create("yozh-notes")  # where faulthandler writes
        given = (command, answer, memory, self._notes)
        self.process = subprocess.Popen(
            [sys.executable, "-P", worker.__file__, str(os.getpid()), *map(str, given)],
            stdin=subprocess.DEVNULL, env=os.environ | THREADS, pass_fds=given, process_group=0,
        )  # fmt: skip
        os.close(command)
        os.close(answer)
        self.ask((sys.path, number, share))
        with suppress(BrokenPipeError):
            self._orders.send_bytes(make)

    def ask(self, message: Any) -> None:
        with suppress(BrokenPipeError):  # the answer will be missing, and that is told
            self._orders.send(message)

    def say(self, byte: bytes) -> None:
        with suppress(BrokenPipeError):
            os.write(self._orders.fileno(), byte)

    def hello(self, seconds: float) -> tuple[tuple[Any, Any], tuple[int, ...] | None, int | None]:
        """`((observation space, action space), shape of the mask in info, time limit)`, once the environments are made."""
        if not self.answers.poll(seconds):
            raise Fallen(self.hung(seconds))
        try:
            self.answer()
        except Misfit as misfit:
            raise Fallen(f"made an environment whose {misfit.what},") from None
        return pickle.loads(self.answers.recv_bytes())

    def answer(self) -> None:
        """Takes the answer that is there; raises where it is not `DONE`."""
        try:
            match os.read(self.answers.fileno(), 1):
                case worker.DONE:
                    return
                case worker.RAISED:
                    kind, message, told = self.answers.recv()
                    raise Fallen(told, kind, message)
                case worker.MISFIT:
                    raise Misfit(pickle.loads(self.answers.recv_bytes()))
        except EOFError:
            pass
        raise Fallen(self._fate())

    def hung(self, seconds: float) -> str:
        """What is to be told of a worker that has been silent for so long; it is asked where it is."""
        self.process.send_signal(signal.SIGUSR1)
        for _ in range(50):
            if self.process.poll() is not None or self._place():
                break
            time.sleep(0.01)
        return f"did not answer for {seconds:g} s{self._place()}"

    def _fate(self) -> str:
        try:
            status = self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        if status >= 0:
            return f"ended with status {status}"
        cause = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        return f"was killed by {cause}{', as happens when memory runs out' * (cause == 'SIGKILL')}{self._place()}"

    def _place(self) -> str:
        """The innermost line that faulthandler told, if it did."""
        told = os.pread(self._notes, 10_000, 0).decode(errors="replace")
        found = re.search(r'File "(.+)", line (\d+) in (\S+)', told)
        return f" ({Path(found[1]).name}:{found[2]} in {found[3]})" if found else ""

    def end(self, grace: float) -> None:
        """Waits for the process to end, kills it after `grace` seconds, and frees what it was given. May be called again."""
        if self.answers.closed:
            return
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.answers.close()
        self._orders.close()
        os.close(self._notes)
