"""What PPO, TRPO and MDPO share: an unroll becomes samples, which are then gone through several times."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from yozh import networks
from yozh.agents.actor_critic import ActorCriticAgent, stirred
from yozh.agents.base import State
from yozh.agents.minibatches import Sequences, check_sizes
from yozh.agents.scales import Rewards
from yozh.core import AnyArray, TimeStep, Unroll
from yozh.distributions import Distribution
from yozh.losses import normalised
from yozh.networks import Network


class Samples(Sequences):
    """What one minibatch needs, `[T, B, ...]`; without recurrence time is folded into B."""

    step: TimeStep
    """Its observation is normalised already."""
    action: PyTree
    log_prob: Float[Array, "T B"]
    value: Float[Array, "T B"]
    advantage: Float[Array, "T B"]
    target: Float[Array, "T B"]
    weight: Float[Array, "T B"]
    memory: PyTree
    """`[B, ...]`"""
    policy: Distribution | None = None
    """Of the weights before the first update; `None` where nothing is compared with it."""


class OnPolicyAgent(ActorCriticAgent):
    """Fields that subclasses declare, and what follows from them."""

    reward: eqx.AbstractVar[Rewards]
    normalise_advantage: eqx.AbstractVar[bool]
    epochs: eqx.AbstractVar[int]
    minibatches: eqx.AbstractVar[int]
    streams: eqx.AbstractVar[int]
    length: eqx.AbstractVar[int]

    def __check_init__(self) -> None:
        check_sizes(
            type(self).__name__.lower(),
            streams=self.streams,
            length=self.length,
            epochs=self.epochs,
            minibatches=self.minibatches,
            whole=self.core is not None,
        )

    def heard(self, reward: Float[AnyArray, "*b"]) -> Float[AnyArray, "*b"]:
        return self.reward(reward)

    def samples(self, state: State, batch: Unroll, noise: Key[Array, ""] | None, *, policy: bool = False) -> tuple[State, Samples]:  # fmt: skip
        """What a fresh unroll teaches, under the weights that acted; with their `policy` if asked for."""
        state, reward = self.rewards(state, batch)
        return state, self.taught(state, batch, reward, noise, policy=policy)

    def taught(self, state: State, batch: Unroll, reward: Float[AnyArray, "T1 B"], noise: Key[Array, ""] | None, *, policy: bool) -> Samples:  # fmt: skip
        """What an unroll with these rewards teaches, under the weights that there are."""
        step = eqx.tree_at(lambda s: s.obs, batch.step, self.see(state, batch.step))
        memory, net = batch.memory[0], stirred(state.net, noise)
        (acted, value), _ = networks.unroll(net, step.obs, memory, step.first, step.extras.get("legal"))
        ratio = jnp.exp(acted.log_prob(batch.action) - batch.extras["log_prob"])[:-1]
        worth = self.estimator(batch, reward, value, self.gamma, ratio)
        past = dict(step=step, action=batch.action, log_prob=batch.extras["log_prob"], value=value)
        past = jax.tree.map(lambda x: x[:-1], past | ({"policy": acted} if policy else {}))
        samples = Samples(**past, advantage=worth.advantage, target=worth.target, weight=worth.weight, memory=memory)
        return samples.apart()

    def look(self, net: Network, samples: Samples, noise: Key[Array, ""] | None) -> tuple[Any, ...]:
        """What the network says of every sample: policy, value and, where it has more to say, that."""
        step, legal = samples.step, samples.step.extras.get("legal")
        said, _ = networks.unroll(stirred(net, noise), step.obs, samples.memory, step.first, legal)
        return said

    def advantage(self, samples: Samples) -> Float[Array, "T B"]:
        """Of mean 0 and deviation 1, if asked for."""
        return normalised(samples.advantage, samples.weight) if self.normalise_advantage else samples.advantage
