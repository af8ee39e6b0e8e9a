"""Phasic policy gradient (Cobbe et al. 2021): PPO, and after every few unrolls a phase in which the policy's trunk learns what the
value knows.

    L_joint(θ) = ½ E[ (V'(s_t; θ) − G_t)² ] + β · E[ KL(π_old(· | s_t) ‖ π(· | s_t; θ)) ]                   (section 2, eq. 3)
    L_value(φ) = ½ E[ (V(s_t; φ) − G_t)² ]

θ are the weights of the policy's trunk, its head and the auxiliary value V', φ those of the value, which has a trunk of its own.
The phase learns from all unrolls since the last one; π_old is the policy at its beginning.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from yozh.agents.base import State
from yozh.agents.on_policy import Samples
from yozh.agents.ppo import PPO
from yozh.agents.schedules import Schedule, schedule
from yozh.core import Experience, Report, Spec, Unroll, check_not_negative, leaf, require, static
from yozh.losses import squared, weighted_mean
from yozh.networks import ActorCritic
from yozh.networks.phasic import Phasic
from yozh.stores.phase import Phase, newest


class PPG(PPO):
    """On-policy; any action space, masked or not, recurrent or not. Fields as in PPO, with the authors' defaults for the phases."""

    entropy_coefficient: Schedule = schedule(0.01)
    """c_e."""
    epochs: int = static(1)
    """Passes over each unroll before the phase."""
    clone: Float[Array, ""] = leaf(1.0)
    """β: how much it costs the policy to change in the phase."""
    policy_phases: int = static(32)
    """Unrolls from phase to phase."""
    auxiliary_epochs: int = static(6)
    """Passes over all these unrolls, in minibatches of the same size."""

    def __check_init__(self) -> None:
        require(
            not self.shared,
            "ppg: the phase hands to the policy's trunk what the value's has learnt, and needs both; leave shared false",
        )
        check_not_negative("ppg: clone", self.clone)
        for field in ("policy_phases", "auxiliary_epochs"):
            require(getattr(self, field) > 0, f"ppg: {field} must be positive, not {getattr(self, field)}")

    @property
    def experience(self) -> Experience:
        return Experience(streams=self.streams, unroll=self.length, store=Phase(self.policy_phases), max_lag=1)

    def network(self, spec: Spec, key: Key[Array, ""]) -> Phasic:
        net = super().network(spec, key)
        assert isinstance(net, ActorCritic)
        return Phasic.of(net, spec, key, self.torso.heads)

    def learn(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, Report]:
        policy_key, phase_key = jax.random.split(key)
        state, report = super().learn(state, newest(batch, self.policy_phases), policy_key)
        due = batch.weight.min() > 0
        nothing = {name: jnp.zeros(()) for name in ("auxiliary_loss", "auxiliary_kl")}

        def once(_: Any, carry: tuple[State, dict[str, Array], Array]) -> tuple[State, dict[str, Array], Array]:
            return self.phase(carry[0], batch, phase_key)

        # a loop of no or one turn: `cond` would copy all unrolls through its branches
        state, told, finite = jax.lax.fori_loop(0, due.astype(jnp.int32), once, (state, nothing, report.finite))
        # most turns have no phase: the mean over all turns shall be that over the phases
        metrics = {name: x * self.policy_phases for name, x in told.items()}
        return state, Report(report.metrics | metrics, report.finite & finite)

    def phase(self, state: State, batch: Unroll, key: Key[Array, ""]) -> tuple[State, dict[str, Array], Array]:
        """The auxiliary phase. Targets are computed anew with the newest value, where the paper keeps those of the policy phase;
        its Adam begins afresh and leaves that of the policy phases alone."""
        samples = self.taught(state, batch, self.scaled(state, batch.step.reward), None, policy=True)

        def update(state: State, minibatch: Samples) -> tuple[State, Report]:
            return self.descend(state, minibatch, None, self.auxiliary_loss)

        fresh = self.optimiser(state.counts).init(state.net)
        start = eqx.tree_at(lambda s: s.optimiser, state, fresh)
        minibatches = self.policy_phases * self.minibatches
        done, reports = samples.passes(update, start, self.auxiliary_epochs, minibatches, key)
        state = eqx.tree_at(lambda s: s.optimiser, done, state.optimiser)
        return state, jax.tree.map(jnp.mean, {n: reports.metrics[n] for n in ("auxiliary_loss", "auxiliary_kl")}), reports.finite.all()  # fmt: skip

    def auxiliary_loss(self, net: Phasic, state: State, batch: Samples, key: None) -> tuple[Float[Array, ""], Any]:
        policy, value, auxiliary = self.look(dataclasses.replace(net, tells=True), batch, None)
        kl = weighted_mean(batch.policy.kl(policy), batch.weight)
        auxiliary_loss = weighted_mean(squared(auxiliary, batch.target), batch.weight)
        loss = auxiliary_loss + self.clone * kl + weighted_mean(squared(value, batch.target), batch.weight)
        return loss, ({"auxiliary_loss": auxiliary_loss, "auxiliary_kl": kl}, None)
