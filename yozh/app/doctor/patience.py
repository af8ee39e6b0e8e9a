"""Calls to code that may raise anything, or never come back."""

import contextlib
import ctypes
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yozh

LIMIT = 10.0
"""Seconds that one `reset` or `step` may take."""


class GivenUp(Exception):
    """The environment cannot be looked at any further; what is wrong is told already."""


class Hung(Exception):
    """A call did not come back within the limit."""


class Broken(Exception):
    """A call raised; the text is the last line of its traceback, and the line of the user's own code that raised."""

    def __init__(self, error: BaseException):
        lines = str(error).strip().splitlines()
        super().__init__(f"{type(error).__name__}{': ' + lines[0] if lines else ''}{_place(error)}")
        self.error = error


class Patience:
    """Calls functions on one thread of their own, and waits for each no longer than the limit.

    A call that hangs is interrupted if it is Python that runs; what hangs below Python keeps its thread until the program
    ends, which it does not keep from ending.
    """

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._asked, self._told), daemon=True)
        self._thread.start()
        self.lost = False

    def __call__(self, f: Callable[..., Any], *args: Any, limit: float | None = None, **kwargs: Any) -> Any:
        """`f(*args, **kwargs)`; raises `Broken` or `Hung`. After `Hung` it is `lost`, and of no more use."""
        assert not self.lost, "a call hangs"
        self._asked.put(lambda: f(*args, **kwargs))
        try:
            result, error = self._told.get(timeout=LIMIT if limit is None else limit)
        except queue.Empty:
            self.lost = True
            thread = ctypes.c_ulong(self._thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(SystemExit))
            raise Hung from None
        if error is not None:
            raise Broken(error)
        return result

    def __del__(self) -> None:
        self._asked.put(None)


def _work(asked: "queue.SimpleQueue[Any]", told: "queue.SimpleQueue[Any]") -> None:
    with contextlib.suppress(SystemExit):  # of `Patience`, where the call comes back in the very moment it is given up
        while (call := asked.get()) is not None:
            try:
                told.put((call(), None))
            except BaseException as error:
                told.put((None, error))
            del call


def _place(error: BaseException) -> str:
    """The innermost line that is neither a package's nor Yozh's, such as ` (corridor.py, line 12)`."""
    ours = str(Path(yozh.__file__).parent)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        installed = "site-packages" in frame.filename or frame.filename.startswith(
            (sys.prefix, sys.base_prefix, ours, "<")
        )
        if not installed:
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""
