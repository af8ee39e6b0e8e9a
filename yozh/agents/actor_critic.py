"""What actor-critics share: acting with a policy and a value, and the scale of rewards."""

from typing import ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from yozh.agents.base import FRESH, GradientAgent, Params, State, check_store
from yozh.agents.estimators import Estimator
from yozh.agents.statistics import Running
from yozh.core import AnyArray, Spec, Store, TimeStep, Unroll
from yozh.networks import ActorCritic, Blueprint, Network
from yozh.networks.cores import CoreBlueprint
from yozh.networks.network import initial_memory
from yozh.networks.noisy import Noise, as_noise, perturbed

N = TypeVar("N", bound=Network)


class ActorCriticAgent(GradientAgent):
    """Fields that subclasses declare, and what follows from them."""

    estimator: eqx.AbstractVar[Estimator]
    torso: eqx.AbstractVar[Blueprint]
    core: eqx.AbstractVar[CoreBlueprint | None]
    shared: eqx.AbstractVar[bool]
    squash: eqx.AbstractVar[bool]
    scale_rewards: eqx.AbstractVar[bool]
    noisy: eqx.AbstractVar[Noise | bool | None]
    stores: ClassVar[tuple[type[Store], ...]] = FRESH
    """Where what it learns from may wait."""

    def __check_init__(self) -> None:
        name = type(self).__name__.lower()
        check_store(name, self.experience.store, self.stores)
        self.estimator.check(name, self.experience)

    def network(self, spec: Spec, key: Key[Array, ""]) -> Network:
        net, noise = (
            ActorCritic(self.torso, self.core, spec, key, shared=self.shared, squash=self.squash),
            as_noise(self.noisy),
        )
        return net if noise is None else noise.install(net)

    def init(self, key: Key[Array, ""], spec: Spec) -> State:
        scale = Running.of(()) if self.scale_rewards else None
        noise = None if as_noise(self.noisy) is None else jax.random.key_data(jax.random.fold_in(key, 1))
        return eqx.tree_at(
            lambda s: (s.rewards, s.noise), super().init(key, spec), (scale, noise), is_leaf=lambda x: x is None
        )

    def noise(self, about: Params | State, version: Int[AnyArray, ""]) -> Key[Array, ""] | None:
        """Of the parameters with this many updates behind them: layers keep one draw while these act, and what they did is learnt
        from under the same draw (Fortunato et al. 2018, NoisyNet-A3C)."""
        return None if about.noise is None else jax.random.fold_in(jax.random.wrap_key_data(about.noise), version)

    def initial_memory(self, params: Params, batch: int) -> PyTree:
        """The network's memory and, where rewards are scaled, the running discounted return."""
        return initial_memory(params.net, batch), jnp.zeros(batch) if self.scale_rewards else None

    def act(self, params: Params, memory: PyTree, step: TimeStep, key: Key[Array, ""], *, explore: bool = True) -> tuple[PyTree, PyTree, PyTree]:  # fmt: skip
        net_memory, discounted = memory
        if explore:
            params = eqx.tree_at(
                lambda p: p.net, params, stirred(params.net, self.noise(params, params.counts.updates))
            )
        (policy, _), net_memory = self.forward(params, net_memory, step)
        action = policy.sample(key) if explore else policy.mode()
        extras = {"log_prob": policy.log_prob(action)}
        if discounted is not None:
            discounted = jnp.where(step.first, 0.0, self.gamma * discounted) + self.heard(step.reward)
            extras["discounted"] = discounted
        return action, extras, (net_memory, discounted)

    def rewards(self, state: State, unroll: Unroll, seen: Bool[AnyArray, "T B"] | None = None) -> tuple[State, Float[AnyArray, "T1 B"]]:  # fmt: skip
        """The unroll's rewards; divided by the running deviation of the discounted return, clipped to ±10, if asked for
        (Engstrom et al. 2020, "reward scaling"). `seen`, if given: which transitions count, where others only fill up the unroll."""
        if state.rewards is None:
            return state, self.heard(unroll.step.reward)
        state = eqx.tree_at(lambda s: s.rewards, state, state.rewards.update(unroll.extras["discounted"][1:], seen))
        return state, self.scaled(state, unroll.step.reward)

    def scaled(self, state: State, reward: Float[AnyArray, "*b"]) -> Float[AnyArray, "*b"]:
        """Rewards on the scale that they are on at present."""
        reward = self.heard(reward)
        if state.rewards is None:
            return reward
        return jnp.clip(reward * jax.lax.rsqrt(state.rewards.variance + 1e-8), -10.0, 10.0)

    def heard(self, reward: Float[AnyArray, "*b"]) -> Float[AnyArray, "*b"]:
        """What is learnt from, before it is scaled: rewards as they come, unless an agent has a part for them."""
        return reward


def stirred(net: N, noise: Key[Array, ""] | None) -> N:
    """With the noise of its layers, where there is any."""
    return net if noise is None else perturbed(net, noise)


def critic_scaled(updates: ActorCritic, rate: Float[Array, ""]) -> ActorCritic:
    """What is added to the weights, the critic's times `rate`; of a shared trunk the last layer alone is the critic's."""
    critic = lambda net: (net.critic, net.value)  # noqa: E731
    scaled = jax.tree.map(lambda x: rate * x, critic(updates))
    return eqx.tree_at(critic, updates, scaled, is_leaf=lambda x: x is None)
