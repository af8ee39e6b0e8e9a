"""Yozh: deep reinforcement learning on JAX. Names are imported when they are first used."""

import importlib
import os
from typing import TYPE_CHECKING, Any

# XLA sizes its pool of CPU threads by NPROC. The products of this field are small: handing them to a second thread costs
# more than it saves, up to twenty times for networks of 256 units. Several runs, one a core, use the machine better.
os.environ.setdefault("NPROC", "1")

if TYPE_CHECKING:
    from yozh import agents, environments, networks, presets
    from yozh.app.face import evaluate, load, make, train
    from yozh.core import YozhError

__all__ = ["YozhError", "agents", "environments", "evaluate", "load", "make", "networks", "presets", "train"]

_HOMES = {"YozhError": "yozh.core"} | dict.fromkeys(("evaluate", "load", "make", "train"), "yozh.app.face")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"yozh.{name}")
    raise AttributeError(f"module 'yozh' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
