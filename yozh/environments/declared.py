"""What an environment declares of its observations, and whether it keeps to it: for the adapter and the doctor."""

import dataclasses
import functools
import warnings
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from yozh import spaces
from yozh.core import YozhError

ROUNDING = 1e-5
"""How far beyond a bound a float may lie, as a share of the bound (of 1 where that is smaller)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """One leaf of an observation space."""

    name: str
    """`observation`, `observation.camera`, `observation[0]`."""
    path: tuple[str | int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    low: np.ndarray
    high: np.ndarray
    index: bool
    """Whether its numbers name one of several (Discrete, MultiDiscrete)."""

    @functools.cached_property
    def bounded(self) -> bool:
        """Whether there is a bound that the number type does not enforce by itself."""
        if np.issubdtype(self.dtype, np.floating):
            limits = (-np.inf, np.inf)
        else:
            limits = (False, True) if self.dtype == bool else (np.iinfo(self.dtype).min, np.iinfo(self.dtype).max)
        return bool((self.low > limits[0]).any() or (self.high < limits[1]).any())

    @functools.cached_property
    def _edges(self) -> tuple[Any, Any]:
        """The bounds, a rounding apart; one number in the place of many equal ones, which is quicker to compare with."""
        slack = ROUNDING if np.issubdtype(self.dtype, np.floating) else 0
        low, high = (b + side * slack * np.maximum(1, np.abs(b)) for b, side in ((self.low, -1), (self.high, 1)))
        low, high = (np.asarray(b, self.dtype) for b in (low, high))
        low, high = (b.flat[0] if b.size and (b == b.flat[0]).all() else b for b in (low, high))
        return low, high

    def of(self, obs: Any) -> Any:
        """This leaf of an observation; raises what indexing raises where it is not there."""
        for key in self.path:
            obs = obs[key]
        return obs

    def outside(self, x: Any) -> tuple[int, ...] | None:
        """The index of the first number of `x`, `[*lead, *shape]`, out of bounds; `None` if all are inside, as NaN is."""
        low, high = self._edges
        out = (x < low) | (x > high)
        return tuple(int(i) for i in np.argwhere(out)[0]) if out.any() else None

    def bounds(self, at: tuple[int, ...]) -> str:
        """The bounds of the element at an index into an array of the field, leading axes allowed."""
        at = at[len(at) - len(self.shape) :]
        return f"[{self.low[at]:.6g}, {self.high[at]:.6g}]"

    def misfit(self, obs: Any) -> str | None:
        """Why this leaf of one observation fits no batch of them, in words that follow its name; `None` if it fits."""
        try:
            x = np.asarray(self.of(obs))
        except (KeyError, IndexError, TypeError):
            return f"is missing from {_named(obs)}"
        except ValueError:
            return "is no array: its rows differ in length"
        if x.shape != self.shape:
            return f"has shape {x.shape}, and {self.shape} is declared"
        if not np.can_cast(x.dtype, self.dtype, "same_kind"):
            return f"is {x.dtype}, which does not go into the declared {self.dtype}"
        return None


def fields(space: Any, name: str = "observation", path: tuple[str | int, ...] = ()) -> list[Field]:
    """The leaves of a space, Yozh's own or Gymnasium's, in the order in which JAX flattens its samples."""
    import gymnasium.spaces as gs

    match space:
        case spaces.Dict(items):
            return [f for key, s in items for f in fields(s, f"{name}.{key}", (*path, key))]
        case gs.Dict():
            return [f for key, s in sorted(space.spaces.items()) for f in fields(s, f"{name}.{key}", (*path, key))]
        case spaces.Tuple() | gs.Tuple():
            parts = space.items if isinstance(space, spaces.Tuple) else space.spaces
            return [f for i, s in enumerate(parts) for f in fields(s, f"{name}[{i}]", (*path, i))]
        case spaces.Box():
            low, high = space.bounds()
        case gs.Box():
            low, high = space.low, space.high
        case gs.Discrete():
            low, high = space.start, space.start + space.n - 1
        case spaces.Discrete():
            low, high = 0, space.n - 1
        case gs.MultiDiscrete():
            low, high = space.start, space.start + space.nvec - 1
        case spaces.MultiDiscrete():
            low, high = 0, np.subtract(space.ns, 1)
        case _:
            low, high = 0, 1
    shape = tuple(space.shape)
    index = isinstance(space, spaces.Discrete | spaces.MultiDiscrete | gs.Discrete | gs.MultiDiscrete)
    low, high = (np.broadcast_to(np.asarray(b), shape) for b in (low, high))
    return [Field(name, path, shape, np.dtype(space.dtype), low, high, index)]


class Keeping:
    """Looks at every observation that a vector environment sends, in Yozh's terms, whether it lies in the declared space.

    A Discrete or MultiDiscrete value out of range is a `YozhError`: it is fed to the network one-hot, and would arrive as
    nothing at all. A Box value out of bounds is only told, as a warning, once a field: many published environments lie
    a little, Yozh scales nothing by these bounds, and what is learnt is sound. NaN is the runners' business.
    """

    def __init__(self, name: str, space: spaces.Space):
        self._name = name
        self._fields = [(i, f) for i, f in enumerate(fields(space)) if f.bounded]
        self._told: set[str] = set()

    def look(self, obs: PyTree, step: int) -> None:
        """`obs`: `[B, ...]`; `step`: how many were taken since `reset`."""
        leaves = jax.tree.leaves(obs)
        for i, field in self._fields:
            if (at := field.outside(leaves[i])) is None:
                continue
            stream, *place = at
            element = f"{field.name}{place or ''}"
            message = (
                f"{self._name}: {element} is {leaves[i][at]:.6g} at step {step:,} of stream {stream}, "
                f"outside its declared {field.bounds(at)}"
            )
            if field.index:
                raise YozhError(message)
            if field.name not in self._told:
                self._told.add(field.name)
                warnings.warn(f"{message}; `yozh doctor` tells more, and later ones are not told", stacklevel=2)


def _named(obs: Any) -> str:
    if isinstance(obs, dict):
        return f"the keys {', '.join(map(str, obs))}"
    return f"a {type(obs).__name__}" + (f" of {len(obs)}" if isinstance(obs, tuple | list) else "")
