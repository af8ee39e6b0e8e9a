"""Yozh: deep reinforcement learning on JAX. Names are imported when they are first used."""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

# XLA sizes its pool of CPU threads by NPROC. The products of this field are small: handing them to a second thread costs
# more than it saves, up to twenty times for networks of 256 units. Several runs, one a core, use the machine better.
os.environ.setdefault("NPROC", "1")
# A program runs in the thread that calls it, so that one thread can act while another one learns.
os.environ.setdefault("JAX_CPU_ENABLE_ASYNC_DISPATCH", "false")
if "jax" in sys.modules:  # it has read its environment already
    sys.modules["jax"].config.update(
        "jax_cpu_enable_async_dispatch", os.environ["JAX_CPU_ENABLE_ASYNC_DISPATCH"] in ("1", "true")
    )

if TYPE_CHECKING:
    from yozh import agents, environments, networks, presets
    from yozh.app.compare import compare
    from yozh.app.doctor import doctor
    from yozh.app.export import export
    from yozh.app.face import evaluate, load, make, train
    from yozh.app.resume import resume
    from yozh.app.seeds import train_seeds
    from yozh.app.stops import StopAfter, StopAtReturn, StopWhenFlat
    from yozh.app.tune import tune
    from yozh.app.wandb_log import WandbLog
    from yozh.app.watch import watch
    from yozh.core import YozhError
    from yozh.runners.observers import Observer, Stop

__all__ = [
    "Observer",
    "Stop",
    "StopAfter",
    "StopAtReturn",
    "StopWhenFlat",
    "WandbLog",
    "YozhError",
    "agents",
    "compare",
    "doctor",
    "environments",
    "evaluate",
    "export",
    "load",
    "make",
    "networks",
    "presets",
    "resume",
    "train",
    "train_seeds",
    "tune",
    "watch",
]

_HOMES = {
    "YozhError": "yozh.core",
    "compare": "yozh.app.compare",
    "doctor": "yozh.app.doctor",
    "export": "yozh.app.export",
    "resume": "yozh.app.resume",
    "train_seeds": "yozh.app.seeds",
    "tune": "yozh.app.tune",
    "watch": "yozh.app.watch",
    "WandbLog": "yozh.app.wandb_log",
    **dict.fromkeys(("Observer", "Stop"), "yozh.runners.observers"),
    **dict.fromkeys(("StopAfter", "StopAtReturn", "StopWhenFlat"), "yozh.app.stops"),
    **dict.fromkeys(("evaluate", "load", "make", "train"), "yozh.app.face"),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"yozh.{name}")
    raise AttributeError(f"module 'yozh' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
