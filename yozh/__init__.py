"""Yozh: deep reinforcement learning on JAX. Names are imported when they are first used."""

import importlib
from typing import TYPE_CHECKING, Any

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
