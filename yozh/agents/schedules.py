"""Hyper-parameters that change while an agent learns: small modules of its counts."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from yozh.core import check_positive, check_share, leaf, require


class Counts(eqx.Module):
    """How far an agent has come."""

    steps: Int[Array, ""]
    """Environment steps of all streams taken note of; auto-reset steps are none."""
    episodes: Int[Array, ""]
    updates: Int[Array, ""]

    @classmethod
    def zero(cls) -> "Counts":
        return cls(*(jnp.zeros((), jnp.int32) for _ in range(3)))


class Schedule(eqx.Module):
    """A number that follows from the counts."""

    @abc.abstractmethod
    def __call__(self, counts: Counts) -> Float[Array, ""]: ...

    def ends(self) -> tuple[Float[Array, ""], ...]:
        """Numbers between which it stays; none where that is not known."""
        return ()


class Constant(Schedule):
    value: Float[Array, ""] = leaf(0.0)

    def ends(self) -> tuple[Float[Array, ""], ...]:
        return (self.value,)

    def __call__(self, counts: Counts) -> Float[Array, ""]:
        return self.value


class Linear(Schedule):
    """From `start` to `end` over the first `fraction` of the run, then `end`."""

    start: Float[Array, ""] = leaf(1.0)
    end: Float[Array, ""] = leaf(0.0)
    fraction: Float[Array, ""] = leaf(1.0)
    """Of the whole run."""
    total: Float[Array, ""] = leaf(jnp.nan)
    """Environment steps of the whole run; `over` fills it in."""

    def __check_init__(self) -> None:
        check_positive("the fraction of a linear schedule", self.fraction)

    def ends(self) -> tuple[Float[Array, ""], ...]:
        return self.start, self.end

    def __call__(self, counts: Counts) -> Float[Array, ""]:
        progress = jnp.minimum(counts.steps.astype(jnp.float32) / (self.fraction * self.total), 1.0)
        return self.start + progress * (self.end - self.start)


class Multiplicative(Schedule):
    """`start · factor^episodes`, never below `floor`; the defaults are the usual ones of LunarLander tutorials."""

    start: Float[Array, ""] = leaf(1.0)
    factor: Float[Array, ""] = leaf(0.996)
    floor: Float[Array, ""] = leaf(0.01)

    def __check_init__(self) -> None:
        check_share("the factor of a multiplicative schedule", self.factor)

    def ends(self) -> tuple[Float[Array, ""], ...]:
        return self.start, self.floor

    def __call__(self, counts: Counts) -> Float[Array, ""]:
        return jnp.maximum(self.start * self.factor ** counts.episodes.astype(jnp.float32), self.floor)


def as_schedule(x: Any) -> Schedule:
    """A number becomes a constant schedule."""
    require(not isinstance(x, str | type), f"a number or a schedule, such as Linear(1.0, 0.1), is wanted, not {x!r}")
    return x if isinstance(x, Schedule) else Constant(x)


def schedule(default: Any) -> Any:
    """A hyper-parameter field that takes a number or a schedule."""
    return eqx.field(default=default, converter=as_schedule)


def check_ends(name: str, x: Schedule, check: Callable[[str, Any], None] = check_share) -> None:
    """Refuses a schedule that begins or ends where `check` refuses a number."""
    for end in x.ends():
        check(name, end)


def over(agent: Any, steps: int) -> Any:
    """The agent with the length of the run written into every linear schedule that has none."""
    require(steps > 0, f"steps must be positive, not {steps}")

    def fill(x: Any) -> Any:
        if isinstance(x, Linear):
            return eqx.tree_at(lambda s: s.total, x, jnp.where(jnp.isnan(x.total), jnp.float32(steps), x.total))
        return x

    return jax.tree.map(fill, agent, is_leaf=lambda x: isinstance(x, Linear))
