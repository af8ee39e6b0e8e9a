"""What observations and actions look like.

Immutable and hashable, so that a space can be a static part of a compiled program. Arrays of a space carry the leading
axes of whoever holds them (`[T, B]`, `[B]` or none) before the shape named here.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Box:
    """Real (or integer) numbers in `[low, high]`; bounds are one number or one for each element (flattened, row-major)."""

    shape: tuple[int, ...]
    low: float | int | tuple[float | int, ...] = -math.inf
    high: float | int | tuple[float | int, ...] = math.inf
    dtype: str = "float32"

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound, each of the space's shape."""
        low, high = (np.asarray(b, self.dtype).reshape(self.shape if np.ndim(b) else ()) for b in (self.low, self.high))
        return np.broadcast_to(low, self.shape), np.broadcast_to(high, self.shape)

    @property
    def bounded(self) -> bool:
        return all(bool(np.isfinite(b).all()) for b in self.bounds())


@dataclass(frozen=True)
class Discrete:
    """An integer in `[0, n)`."""

    n: int
    dtype: str = "int32"

    @property
    def shape(self) -> tuple[int, ...]:
        return ()


@dataclass(frozen=True)
class MultiDiscrete:
    """A vector of integers, the i-th in `[0, ns[i])`."""

    ns: tuple[int, ...]
    dtype: str = "int32"

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.ns),)


@dataclass(frozen=True)
class MultiBinary:
    """A vector of `n` zeros and ones."""

    n: int
    dtype: str = "int8"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n,)


@dataclass(frozen=True)
class Dict:
    """Named spaces, sorted by name (the order in which JAX flattens a dictionary)."""

    items: tuple[tuple[str, "Space"], ...]

    @classmethod
    def of(cls, spaces: Mapping[str, "Space"]) -> "Dict":
        return cls(tuple(sorted(spaces.items())))


@dataclass(frozen=True)
class Tuple:
    """An ordered group of spaces."""

    items: tuple["Space", ...]


Leaf = Box | Discrete | MultiDiscrete | MultiBinary
Space = Leaf | Dict | Tuple


def map_leaves(f: Callable[[Leaf], Any], space: Space) -> Any:
    """The pytree with the structure of the space's samples that holds `f(leaf)` in the place of each."""
    match space:
        case Dict(items):
            return {name: map_leaves(f, s) for name, s in items}
        case Tuple(items):
            return tuple(map_leaves(f, s) for s in items)
        case _:
            return f(space)


def zeros(space: Space, lead: tuple[int, ...] = ()) -> Any:
    """A pytree of NumPy zeros of the space, under leading axes."""
    return map_leaves(lambda s: np.zeros((*lead, *s.shape), s.dtype), space)


def describe(space: Space) -> str:
    """The space in a few words, for messages."""
    match space:
        case Box(shape, low, high, dtype):
            span = f", {low} to {high}" if not isinstance(low, tuple) and not isinstance(high, tuple) else ""
            return f"Box{shape} of {dtype}{span}"
        case Discrete(n):
            return f"Discrete({n})"
        case MultiDiscrete(ns):
            return f"MultiDiscrete{ns}"
        case MultiBinary(n):
            return f"MultiBinary({n})"
        case Dict(items):
            return "Dict(" + ", ".join(f"{name}: {describe(s)}" for name, s in items) + ")"
        case Tuple(items):
            return "Tuple(" + ", ".join(map(describe, items)) + ")"


def clip(space: Space, action: Any) -> Any:
    """The action with its `Box` parts brought inside their bounds; leading axes are free."""
    match space:
        case Dict(items):
            return {name: clip(s, action[name]) for name, s in items}
        case Tuple(items):
            return tuple(clip(s, a) for s, a in zip(items, action, strict=True))
        case Box():
            low, high = (np.expand_dims(b, tuple(range(action.ndim - b.ndim))) for b in space.bounds())
            return jnp.clip(action, low, high)
        case _:
            return action


def from_gymnasium(space: Any) -> Space:
    """The space of Gymnasium in Yozh's terms: 64-bit numbers become 32-bit ones, a `Discrete` starts at 0.

    `narrow` and `widen` take observations and actions across.
    """
    import gymnasium.spaces as gs

    match space:
        case gs.Box():
            return Box(tuple(space.shape), *(_bound(b) for b in (space.low, space.high)), dtype=_narrow(space.dtype))
        case gs.Discrete():
            return Discrete(int(space.n))
        case gs.MultiDiscrete() if space.nvec.ndim == 1:
            return MultiDiscrete(tuple(int(n) for n in space.nvec))
        case gs.MultiBinary() if len(space.shape) == 1:
            return MultiBinary(space.shape[0])
        case gs.MultiBinary():
            return Box(tuple(space.shape), 0.0, 1.0, "int8")
        case gs.Dict():
            return Dict.of({name: from_gymnasium(s) for name, s in space.spaces.items()})
        case gs.Tuple():
            return Tuple(tuple(from_gymnasium(s) for s in space.spaces))
    raise TypeError(
        f"space {space} is not supported; Box, Discrete, MultiDiscrete and MultiBinary are, "
        "and Dict and Tuple of these: change it with a gymnasium wrapper (TransformObservation, TransformAction)"
    )


def narrow(space: Any, x: Any) -> Any:
    """A batch of samples of a Gymnasium space, as `from_gymnasium(space)` describes them."""
    import gymnasium.spaces as gs

    match space:
        case gs.Dict():
            return {name: narrow(s, x[name]) for name, s in space.spaces.items()}
        case gs.Tuple():
            return tuple(narrow(s, part) for s, part in zip(space.spaces, x, strict=True))
        case gs.Discrete() | gs.MultiDiscrete():
            return np.asarray(x - space.start, np.int32)
        case _:
            return np.asarray(x, _narrow(space.dtype))


def widen(space: Any, x: Any) -> Any:
    """The inverse of `narrow`: a batch of Yozh's samples as samples of the Gymnasium space."""
    import gymnasium.spaces as gs

    match space:
        case gs.Dict():
            return {name: widen(s, x[name]) for name, s in space.spaces.items()}
        case gs.Tuple():
            return tuple(widen(s, part) for s, part in zip(space.spaces, x, strict=True))
        case gs.Discrete() | gs.MultiDiscrete():
            return np.asarray(x, space.dtype) + space.start
        case _:
            return np.asarray(x, space.dtype)


def _narrow(dtype: Any) -> str:
    return {"float64": "float32", "int64": "int32", "uint64": "uint32"}.get(str(dtype), str(dtype))


def _bound(b: np.ndarray) -> float | tuple[float, ...]:
    values = tuple(float(x) for x in b.ravel())
    return values[0] if len(set(values)) == 1 else values
