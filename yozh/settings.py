"""Objects as plain data and back: how agents, networks and spaces are written into files, without pickle."""

import dataclasses
import importlib
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from yozh.core import YozhError, require

LARGEST = 64
"""Elements of an array that is still written as numbers; larger ones are weights, which belong in a tensor file."""

LONGEST = 2**16
"""Elements of a list that is read: bounds of a large observation, not layers."""

HOMES = ("core", "spaces", "agents", "networks", "stores", "outer", "planning")
"""Where the classes are that settings may name; those of environments would open simulators."""


def describe(value: Any) -> Any:
    """The value as JSON; a dataclass becomes its fields under their names and `class`, its full name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return {"class": qualified(type(value))} | fields
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _numbers(np.asarray(value))
    if isinstance(value, tuple | list):
        return [describe(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): describe(v) for k, v in value.items()}
    return {"python": qualified(value) if callable(value) else str(value)}


def build(data: Any, *, longest: int = LONGEST) -> Any:
    """What `describe` described. Only dataclasses of Yozh itself are made; anything else is refused by name, and so are lists
    of more than `longest` elements."""
    if isinstance(data, list):
        require(len(data) <= longest, f"a list of {len(data):,} elements is longer than any setting's")
        return tuple(build(v, longest=longest) for v in data)
    if not isinstance(data, dict):
        return data
    if "float" in data:
        return float(data["float"])
    require("python" not in data, lambda: f"{data['python']} is not part of Yozh and cannot be read from a file")
    require(isinstance(data.get("class"), str), lambda: f"settings without a class: {sorted(data)}")
    cls = _find(data["class"])
    known = {f.name for f in dataclasses.fields(cls) if f.init}
    unknown = sorted(set(data) - known - {"class"})
    require(not unknown, f"{data['class']} has no {', '.join(unknown)}; the file is of another version of Yozh")
    return cls(**{k: build(v, longest=longest) for k, v in data.items() if k != "class"})


def qualified(thing: Any) -> str:
    return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', type(thing).__name__)}".lstrip(".")


def _find(name: str) -> type:
    module, _, cls = name.rpartition(".")
    parts = module.split(".")
    if parts[0] == "yozh" and parts[1:2] and parts[1] in HOMES and all(map(str.isidentifier, parts)):
        try:
            found = getattr(importlib.import_module(module), cls, None)
        except ImportError:
            found = None
        if isinstance(found, type) and dataclasses.is_dataclass(found) and found.__module__ == module:
            return found
    raise YozhError(f"{name} is not part of this Yozh and cannot be read from a file")


def _numbers(array: np.ndarray) -> Any:
    if array.size > LARGEST:
        return {"python": f"{array.dtype}{list(array.shape)}"}
    if array.ndim:
        return [_numbers(a) for a in array]
    # float32 prints shortest as itself: 0.0006, not the double that is nearest to it.
    return describe(float(str(array)) if np.issubdtype(array.dtype, np.floating) else array.item())
