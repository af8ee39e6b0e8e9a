"""What most algorithms share: one differentiable loss, an optimiser, counts and observation statistics."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key, PyTree, UInt32

from yozh import networks
from yozh.agents import statistics
from yozh.agents.declared import check_fields
from yozh.agents.schedules import Counts, Schedule, check_ends
from yozh.agents.statistics import Running
from yozh.core import (
    Agent,
    AnyArray,
    Report,
    Spec,
    Store,
    TimeStep,
    Unroll,
    YozhError,
    check_not_negative,
    check_positive,
    check_share,
    require,
)
from yozh.networks.network import Network, initial_memory
from yozh.stores import Episodes, Latest, Phase


class Params(eqx.Module):
    """What acting needs."""

    net: Network
    statistics: PyTree
    counts: Counts
    noise: UInt32[AnyArray, "2"] | None = None


class State(eqx.Module):
    """What learning needs."""

    net: Network
    target: Network | None
    optimiser: PyTree
    statistics: PyTree
    """Of observations; `None` where they are not normalised."""
    counts: Counts
    rewards: Running | None = None
    """Of discounted returns; `None` where rewards are not scaled."""
    noise: UInt32[AnyArray, "2"] | None = None
    """Key data of what a policy gradient's noisy layers draw; `None` where there are none."""
    critic: PyTree = None
    """Of the optimiser that fits a value by itself, and that value where the policy's network has it not; `None` where one optimiser
    serves all."""
    penalty: Float[Array, ""] | None = None
    """β of PPO's KL penalty; `None` where there is none."""
    begun: Counts | None = None
    """Counts when the episodes of this batch were begun; `None` where no schedule must stand still while they last."""


class GradientAgent(Agent):
    """An algorithm that follows the gradient of `loss`. It says what its network, loss and optimiser are."""

    learning_rate: eqx.AbstractVar[Schedule]
    gamma: eqx.AbstractVar[Array]
    normalise_observations: eqx.AbstractVar[bool]
    max_gradient_norm: eqx.AbstractVar[Array]

    def __new__(cls, *args: Any, **settings: Any):  # before `__init__`, which knows the fields and nothing of reasons
        if "replay" in settings:
            check_replay(cls)
        return super().__new__(cls)

    def __post_init__(self) -> None:  # before any `__check_init__`, which takes the types for granted
        check_fields(type(self).__name__.lower(), self)

    def __check_init__(self) -> None:
        name = type(self).__name__.lower()
        check_share(f"{name}: gamma", self.gamma)
        check_positive(f"{name}: max_gradient_norm", self.max_gradient_norm)
        check_ends(f"{name}: learning_rate", self.learning_rate, check_not_negative)

    @abc.abstractmethod
    def network(self, spec: Spec, key: Key[Array, ""]) -> Network: ...

    @abc.abstractmethod
    def loss(self, net: Network, state: State, batch: Any, key: Any) -> tuple[Float[Array, ""], tuple[dict[str, Array], Array | None]]:  # fmt: skip
        """The scalar to descend, and with it metrics and new priorities (or `None`)."""

    @abc.abstractmethod
    def optimiser(self, counts: Counts) -> optax.GradientTransformation:
        """Built from the hyper-parameters on every trace, never stored."""

    def after(self, state: State) -> State:
        """What follows an update: target networks."""
        return state

    def pace(self, updates: Network) -> Network:
        """What is added to the weights, once parts that learn at a rate of their own are scaled."""
        return updates

    def init(self, key: Key[Array, ""], spec: Spec) -> State:
        net = self.network(spec, key)
        counts = Counts.zero()
        seen = statistics.observation_statistics(spec.observation) if self.normalise_observations else None
        return State(net, None, self.optimiser(counts).init(net), seen, counts)

    def policy(self, state: State) -> Params:
        return Params(state.net, state.statistics, state.counts, state.noise)

    def initial_memory(self, params: Params, batch: int) -> PyTree:
        return initial_memory(params.net, batch)

    def observe(self, state: State, unroll: Unroll) -> State:
        """Where a batch takes several unrolls, the statistics stand still until it is learnt from: `learn` moves them itself."""
        state = state if isinstance(self.experience.store, Episodes) else acquainted(state, unroll.step)
        counts = Counts(
            state.counts.steps + jnp.sum(~unroll.step.first[1:], dtype=jnp.int32),
            state.counts.episodes + jnp.sum(unroll.step.last[1:], dtype=jnp.int32),
            state.counts.updates,
        )
        return eqx.tree_at(lambda s: s.counts, state, counts)

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        return self.descend(state, batch, key)

    def descend(self, state: State, batch: Any, key: Key[Array, ""] | None, loss: Callable[..., Any] | None = None) -> tuple[State, Report]:  # fmt: skip
        """One gradient step, of `loss` unless another one is given. A gradient that is not finite counts as zero, and is
        reported."""
        loss, optimiser = self.loss if loss is None else loss, self.optimiser(state.counts)
        net, memory, report = self.step_down(loss, optimiser, state.optimiser, state, batch, key)
        counts = eqx.tree_at(lambda c: c.updates, state.counts, state.counts.updates + 1)
        state = self.after(eqx.tree_at(lambda s: (s.net, s.optimiser, s.counts), state, (net, memory, counts)))
        return state, report

    def step_down(self, loss: Callable[..., Any], optimiser: optax.GradientTransformation, memory: PyTree, state: State, batch: Any, key: Key[Array, ""] | None) -> tuple[Network, PyTree, Report]:  # fmt: skip
        """The network and the optimiser's memory after one step down `loss(net, state, batch, key)`."""
        value_and_grad = jax.value_and_grad(lambda net: loss(net, state, batch, key), has_aux=True)
        (found, (metrics, priority)), gradient = value_and_grad(state.net)
        # products, since XLA adds up a sum one by one
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient)))
        finite = jnp.isfinite(found) & jnp.isfinite(norm)
        scale = jnp.minimum(1.0, self.max_gradient_norm / norm)
        gradient = jax.tree.map(lambda g: jnp.where(finite, g * scale, 0.0), gradient)
        with jax.numpy_dtype_promotion("standard"):  # Optax raises floats to integer powers
            updates, memory = optimiser.update(gradient, memory)
        net = jax.tree.map(jnp.add, state.net, self.pace(updates))
        return net, memory, Report(metrics | {"loss": found, "gradient_norm": norm}, finite, priority)

    def see(self, params: Params | State, step: TimeStep) -> PyTree:
        """The step's observation as the network takes it."""
        return statistics.normalise(params.statistics, step.obs)

    def forward(self, params: Params | State, memory: PyTree, step: TimeStep) -> tuple[PyTree, PyTree]:
        """The network's answer for a batch of steps `[B, ...]`."""
        return networks.forward(params.net, self.see(params, step), memory, step.first, step.extras.get("legal"))


class ValueAgent(GradientAgent):
    """An algorithm that learns what actions are worth, and says so: `evaluate` holds it against what came."""

    reward: eqx.AbstractVar[Callable[[Array], Array]]
    """A reward as it is learnt from."""

    @abc.abstractmethod
    def expected(self, params: Params, memory: PyTree, step: TimeStep) -> Float[Array, " B"] | None:
        """The return, of rewards as they are learnt from and discounted by `gamma`, that it expects of its own choice without
        exploring; `None` if what it learns is none."""


def acquainted(state: State, step: TimeStep, seen: Bool[AnyArray, "T B"] | None = None) -> State:
    """With the observations of all steps but the last in its statistics, `[T+1, B]`; of them `seen`, if given, says which count."""
    if state.statistics is None:
        return state
    found = statistics.update(state.statistics, jax.tree.map(lambda x: x[:-1], step.obs), seen)
    return eqx.tree_at(lambda s: s.statistics, state, found, is_leaf=lambda x: x is None)


def check_horizon(name: str, spec: Spec, room: int) -> None:
    """Refuses environments whose episodes never end, or do not fit."""
    longest = spec.horizon
    if longest is None:
        raise YozhError(
            f"{name}: it learns from whole episodes, and nothing says that this environment's end; give it a time limit, or use ppo"
        )
    require(
        longest <= room,
        f"{name}: episodes may take {longest} steps, and there is room for {room}; set horizon={longest}",
    )


FRESH = (Latest, Phase, Episodes)
"""Stores that hand out what the present policy did, and no more."""


def check_store(name: str, store: Store, allowed: tuple[type[Store], ...] = FRESH) -> None:
    """Refuses a store that hands out what older policies did."""
    require(isinstance(store, allowed), _older(name, type(store).__name__))


def check_replay(kind: type) -> None:
    """Refuses the keyword `replay` where the agent has no such field."""
    name, fields = kind.__name__.lower(), {f.name for f in dataclasses.fields(kind)}
    require(
        "replay" in fields or "capacity" not in fields,
        f"{name}: its replay is its own: set capacity and batch; only dqn is told which kind of replay",
    )
    require("replay" in fields, _older(name, "a replay"))


def _older(name: str, what: str) -> str:
    return (
        f"{name}: it learns from what its present policy did, and {what} hands out what older ones did; use acer or dqn"
    )
