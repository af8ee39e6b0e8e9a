"""A finite Markov decision process as arrays, and what happens in it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from yozh.core import AnyArray, require


class MDP(eqx.Module):
    """States 0 to S - 1, actions 0 to A - 1. `MDP.of` makes one and checks it; its arrays are NumPy's, in float64."""

    transition: Float[AnyArray, "S A S"]
    """Chance of the state that follows; zero in states where an episode ends."""
    reward: Float[AnyArray, "S A"]
    """Its mean; zero in states where an episode ends."""
    spread: Float[AnyArray, "S A"]
    """Standard deviation of the reward, which is normal."""
    terminal: Bool[AnyArray, " S"]
    """Where an episode ends: nothing follows, and the value is 0."""
    start: Float[AnyArray, " S"]
    """Chance that an episode begins there."""
    legal: Bool[AnyArray, "S A"]
    """What may be done."""

    @classmethod
    def of(cls, transition: Any, reward: Any, *, spread: Any = 0.0, terminal: Sequence[int] = (), start: int | Any = 0,
           legal: Any = True) -> "MDP":  # fmt: skip
        """From arrays, or what broadcasts to them. `terminal` lists states, `start` is a state or a chance for each.

        Raises `YozhError` where chances do not add up to 1 or a state has no legal action.
        """
        p = np.array(transition, float)
        require(p.ndim == 3 and p.shape[0] == p.shape[2], f"transition is [S, A, S], not {list(p.shape)}")
        ends = np.isin(np.arange(len(p)), terminal)
        begins = np.eye(len(p))[start] if isinstance(start, int) else np.array(start, float)
        allowed = np.broadcast_to(np.asarray(legal, bool), p.shape[:2])
        p[ends] = 0.0
        going = allowed & ~ends[:, None]
        require(allowed.any(1).all(), lambda: f"no action is legal in state {int(np.argmin(allowed.any(1)))}")
        wrong = np.argwhere(going & (np.abs(p.sum(2) - 1) > 1e-9) | (p < 0).any(2))
        require(not len(wrong), lambda: f"chances after state {wrong[0][0]}, action {wrong[0][1]} do not add up to 1")
        require(
            np.isclose(begins.sum(), 1.0) and not (begins[ends] > 0).any(), "start: chances of states that do not end"
        )
        mean, deviation = (
            np.where(going, np.broadcast_to(np.asarray(x, float), p.shape[:2]), 0.0) for x in (reward, spread)
        )
        return cls(np.where(going[..., None], p, 0.0), mean, deviation, ends, begins, allowed)

    @property
    def states(self) -> int:
        return self.reward.shape[0]

    @property
    def actions(self) -> int:
        return self.reward.shape[1]

    def begin(self, key: Key[Array, ""]) -> Int[Array, ""]:
        """A state in which an episode begins."""
        return choose(jnp.asarray(self.start), key)

    def step(self, state: Int[Array, ""], action: Int[Array, ""], key: Key[Array, ""]) -> tuple[Int[Array, ""], Float[Array, ""]]:  # fmt: skip
        """The state that follows, and the reward."""
        where, what = jax.random.split(key)
        mean, spread = jnp.asarray(self.reward)[state, action], jnp.asarray(self.spread)[state, action]
        follows = choose(jnp.asarray(self.transition)[state, action], where)
        return follows, mean + spread * jax.random.normal(what)


class Trajectory(NamedTuple):
    """Transitions one after the other, `[T]`; the one after an episode's last begins a new episode."""

    state_tm1: Int[Array, " T"]
    action_tm1: Int[Array, " T"]
    reward_t: Float[Array, " T"]
    discount_t: Float[Array, " T"]
    """0 where the episode ended, else 1."""
    state_t: Int[Array, " T"]


def follow(mdp: MDP, policy: Float[AnyArray, "S A"], steps: int, key: Key[Array, ""]) -> Trajectory:
    """What a policy `[S, A]`, a chance for each action, goes through."""

    def step(state: Array, key: Array) -> tuple[Array, Trajectory]:
        act, move, again = jax.random.split(key, 3)
        action = choose(jnp.asarray(policy)[state], act)
        follows, reward = mdp.step(state, action, move)
        ends = jnp.asarray(mdp.terminal)[follows]
        went = Trajectory(state, action, reward, 1.0 - ends.astype(jnp.float32), follows)
        return jnp.where(ends, mdp.begin(again), follows), went

    first, key = jax.random.split(key)
    return jax.lax.scan(step, mdp.begin(first), jax.random.split(key, steps))[1]


def choose(chance: Float[Array, " n"], key: Key[Array, ""]) -> Int[Array, ""]:
    """One of n, as often as its chance says."""
    reach = jnp.cumsum(chance)
    return jnp.argmax(reach > jax.random.uniform(key) * reach[-1]).astype(jnp.int32)
