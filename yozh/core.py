"""The vocabulary: what environments, agents, stores and runners say to each other.

Time is always the leading axis and streams (parallel environments) the second: `[T, B, ...]`. Auto-reset is *next-step*:
the step that closes an episode is followed by the step that opens the next one, and the action in between is ignored.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from yozh.spaces import Space

AnyArray = Array | np.ndarray


class YozhError(Exception):
    """What a user asked for cannot be done; the message says what, where and what to do instead."""


class TimeStep(eqx.Module):
    """What an environment returns on arriving at an observation."""

    obs: PyTree
    """`*b ...`: the observation, as the environment's space describes it."""
    reward: Float[AnyArray, "*b"]
    """`*b`: earned by the previous action; 0 where `first`."""
    discount: Float[AnyArray, "*b"]
    """`*b`: 0 if the episode terminated here, else 1 (gamma belongs to the agent)."""
    first: Bool[AnyArray, "*b"]
    """`*b`: `obs` opens an episode; recurrent memory is cleared before it is read."""
    last: Bool[AnyArray, "*b"]
    """`*b`: `obs` closes an episode, terminated or truncated; the next action is ignored."""
    extras: dict[str, Any] = eqx.field(default_factory=dict)
    """`*b ...`: what else the environment tells; `"legal"` is the mask of legal actions, True where allowed."""


def restart(obs: PyTree, extras: dict[str, Any] | None = None) -> TimeStep:
    """The step that opens an episode of one stream."""
    no = jnp.zeros((), bool)
    return TimeStep(obs, jnp.zeros(()), jnp.ones(()), ~no, no, extras or {})


def transition(obs: PyTree, reward: Any, *, terminated: Any, truncated: Any = False, extras: dict[str, Any] | None = None) -> TimeStep:  # fmt: skip
    """A later step of one stream. `terminated` stops the future's worth, `truncated` only stops the episode."""
    terminated, truncated = jnp.asarray(terminated, bool), jnp.asarray(truncated, bool)
    discount = 1.0 - terminated.astype(jnp.float32)
    return TimeStep(obs, jnp.asarray(reward, jnp.float32), discount, jnp.zeros((), bool), terminated | truncated, extras or {})  # fmt: skip


class Unroll(eqx.Module):
    """T transitions of B streams, that is T+1 consecutive steps; the last step is the next unroll's first."""

    step: TimeStep
    """`[T+1, B, ...]`"""
    action: PyTree
    """`[T+1, B, ...]`: the last one was never carried out."""
    extras: PyTree
    """`[T+1, B, ...]`: what `act` wants remembered (log-probability, logits, value ...)."""
    memory: PyTree
    """`[B, ...]`: recurrent memory before step 0."""
    version: Int[Array, " B"]
    """`[B]`: updates behind the parameters that acted; policy lag is data."""
    weight: Float[Array, " B"]
    """`[B]`: importance weight, ones unless a prioritised store drew the batch."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """What an agent must know of an environment."""

    observation: Space
    action: Space
    legal: bool = False
    """Whether `TimeStep.extras["legal"]` carries a mask of legal actions."""
    horizon: int | None = None
    """Steps of the longest episode there can be; `None` where nothing says that episodes end."""


class Report(eqx.Module):
    """What one call of `learn` has to say."""

    metrics: dict[str, Float[Array, ""]]
    """Scalars to log, under the field's usual names."""
    finite: Bool[Array, ""]
    """False if loss or gradient was not finite; such an update is not applied."""
    priority: Float[Array, " B"] | None = None
    """`[B]`: new priorities of the batch's samples, where the store asks for them."""


class Drawn(eqx.Module):
    """Some draws from a store that nothing is learnt from, for reports."""

    age: Int[AnyArray, " n"]
    """`[n]`: environment steps since the first transition of each window drawn."""
    weight: Float[AnyArray, " n"] | None = None
    """`[n]`: as in `Unroll`; `None` where all are alike."""
    priority: Float[AnyArray, " n"] | None = None
    """`[n]`: of stored windows, drawn uniformly; 0 of those that are never drawn. `None` where there are none."""


class Env(eqx.Module):
    """A pure environment of one stream, without auto-reset. Its parameters are leaves: vary them with `vmap`."""

    @property
    @abc.abstractmethod
    def spec(self) -> Spec: ...

    @abc.abstractmethod
    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        """Opens an episode: `(state, step)`, the step made by `restart`."""

    @abc.abstractmethod
    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        """Carries out one action of an unfinished episode: `(state, step)`, the step made by `transition`."""


class BatchedEnv(eqx.Module):
    """`batch` streams inside the compiled program, with next-step auto-reset. All arrays lead with `[B]`."""

    pure: ClassVar[bool] = True
    """Whether `reset` may be traced and the state saved; False where a simulator lives outside the program."""
    backend: ClassVar[str] = "jax"
    """What runs the environment."""

    @property
    @abc.abstractmethod
    def spec(self) -> Spec: ...

    @property
    @abc.abstractmethod
    def batch(self) -> int: ...

    @abc.abstractmethod
    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]: ...

    @abc.abstractmethod
    def step(self, state: PyTree, action: PyTree) -> tuple[PyTree, TimeStep]:
        """Randomness is the state's: the same state and actions give the same steps, whoever runs them."""

    def close(self) -> None:
        """Ends simulators outside the program; pure environments have none."""


@runtime_checkable
class HostEnv(Protocol):
    """`batch` streams that live outside the compiled program and speak NumPy, with next-step auto-reset."""

    spec: Spec
    batch: int
    backend: str

    def reset(self, seed: int) -> TimeStep:
        """Restarts every stream, `[B, ...]`."""
        ...

    def send(self, action: PyTree) -> None:
        """Hands every stream its action, `[B, ...]`, and returns at once."""
        ...

    def recv(self) -> TimeStep:
        """Waits for the steps that answer the last `send`, `[B, ...]`."""
        ...

    def close(self) -> None: ...


class Store(eqx.Module):
    """Where unrolls wait to be learnt from. Sizes are static fields; the content is a pytree of arrays."""

    @abc.abstractmethod
    def init(self, example: Unroll) -> PyTree:
        """An empty store for unrolls shaped like the example."""

    @abc.abstractmethod
    def add(self, state: PyTree, unroll: Unroll) -> PyTree: ...

    @abc.abstractmethod
    def ready(self, state: PyTree) -> Bool[Array, ""]:
        """Whether `sample` may be called."""

    @abc.abstractmethod
    def sample(self, state: PyTree, key: Key[Array, ""]) -> tuple[Unroll, PyTree]:
        """A batch, and the handle under which `feedback` finds it again."""

    def feedback(self, state: PyTree, handle: PyTree, priority: Float[Array, " B"] | None) -> PyTree:
        """Takes note of new priorities; most stores have none."""
        return state

    def recent(self, state: PyTree, n: int) -> PyTree:
        """Some of the newest observations, at most about `n`, `[k, ...]`; `None` where there are none."""
        return None

    def draws(self, state: PyTree, key: Key[Array, ""], n: int) -> Drawn | None:
        """What `n` windows would be if they were sampled now; `None` where old ones are not sampled. Only when `ready`."""
        return None

    def sever(self, state: PyTree) -> PyTree:
        """What comes next does not follow what is stored: the environments were opened anew."""
        return state


@dataclasses.dataclass(frozen=True)
class Experience:
    """How an agent wants to be fed. Static: changing it means another program."""

    streams: int
    """Parallel environments B."""
    unroll: int
    """Steps T of each stream between two turns of learning."""
    store: Store
    updates: int = 1
    """Calls of `learn` after each unroll."""
    warm_up: int = 0
    """Environment steps before the first update."""
    max_lag: int = 0
    """How many turns of learning the acting parameters may lie behind; 0 where the estimator does not correct for it."""


class Agent(eqx.Module):
    """An algorithm with its hyper-parameters: numeric ones are array leaves, structural ones static fields.

    It owns no loop, environment, buffer, device or thread. `State` is a pytree of arrays, `Params` the part of it that
    acting needs, `Memory` the recurrent memory of a batch of streams.
    """

    @property
    @abc.abstractmethod
    def experience(self) -> Experience: ...

    @abc.abstractmethod
    def init(self, key: Key[Array, ""], spec: Spec) -> PyTree:
        """A fresh `State`; refuses, with a `YozhError`, spaces it cannot take."""

    @abc.abstractmethod
    def policy(self, state: PyTree) -> PyTree: ...

    def poised(self, params: PyTree) -> PyTree:
        """What acts for one unroll, made of `params` once before it; `act` takes either."""
        return params

    @abc.abstractmethod
    def initial_memory(self, params: PyTree, batch: int) -> PyTree: ...

    @abc.abstractmethod
    def act(self, params: PyTree, memory: PyTree, step: TimeStep, key: Key[Array, ""], *, explore: bool = True) -> tuple[PyTree, PyTree, PyTree]:  # fmt: skip
        """`(action, extras, memory)` for a batch of steps `[B, ...]`."""

    @abc.abstractmethod
    def observe(self, state: PyTree, unroll: Unroll) -> PyTree:
        """Takes note of fresh experience, each unroll once: counts, observation statistics."""

    @abc.abstractmethod
    def learn(self, state: PyTree, batch: Unroll, key: Key[Array, ""]) -> tuple[PyTree, Report]: ...


def leaf(default: Any, **kwargs: Any) -> Any:
    """A numeric hyper-parameter: one float32 array leaf, so that it can be vmapped, annealed and differentiated."""
    return eqx.field(default=default, converter=lambda x: x if callable(x) else jnp.asarray(x, jnp.float32), **kwargs)


def static(default: Any = dataclasses.MISSING, **kwargs: Any) -> Any:
    """A structural hyper-parameter: part of the program, not of its data."""
    return eqx.field(static=True, **({} if default is dataclasses.MISSING else {"default": default}), **kwargs)


def concrete(x: Any) -> bool:
    """Whether a hyper-parameter is a plain number now, to be checked (it is not under `vmap` or `jit`)."""
    return not callable(x) and not isinstance(x, Tracer) and jnp.ndim(x) == 0


def check_share(name: str, x: Any, interval: str = "[0, 1]") -> None:
    """Refuses a number outside `interval`, whose ends are 0 and 1, or an array with one; what is being traced passes."""
    above = np.greater if interval[0] == "(" else np.greater_equal
    below = np.less if interval[-1] == ")" else np.less_equal
    _check(x, lambda x: above(x, 0) & below(x, 1), f"{name} lies in {interval}, not")


def check_positive(name: str, x: Any) -> None:
    """Refuses a number that is not above 0, or an array with one; what is being traced passes."""
    _check(x, lambda x: x > 0, f"{name} must be positive, not")


def check_not_negative(name: str, x: Any) -> None:
    """Refuses a number below 0, or an array with one; what is being traced passes."""
    _check(x, lambda x: x >= 0, f"{name} must not be negative, and is")


def _check(x: Any, test: Callable[[Any], Any], says: str) -> None:
    if not callable(x) and not isinstance(x, Tracer):
        numbers = np.asarray(x)
        require(test(numbers).all(), lambda: f"{says} {numbers if numbers.ndim else format(numbers, 'g')}")


def require(ok: bool | Any, message: str | Callable[[], str]) -> None:
    """Raises `YozhError(message)` unless `ok`."""
    if not ok:
        raise YozhError(message if isinstance(message, str) else message())
