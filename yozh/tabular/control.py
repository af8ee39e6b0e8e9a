"""Learning to act, with values linear in features: `q(s, a) = w[a] · x(s)`; one-hot features are a table."""

import abc
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from yozh import losses
from yozh.core import check_share, leaf
from yozh.distributions import masked
from yozh.tabular.mdp import MDP, Trajectory, choose


class Look(NamedTuple):
    """What is thought of a state."""

    q: Float[Array, "tables A"]
    """The lowest number there is where an action is not legal."""
    policy: Float[Array, " A"]
    """Chance of each action."""
    action: Int[Array, ""]
    """That is taken."""


class Method(eqx.Module):
    """Where the target comes from. One of the tables learns from each transition, by chance; actions are chosen by their sum."""

    tables: ClassVar[int] = 1

    alpha: Float[Array, ""] = leaf(0.1)
    """Step size."""
    epsilon: Float[Array, ""] = leaf(0.1)
    """Chance of an action that is drawn from all legal ones; else one of the best is."""

    @abc.abstractmethod
    def target(self, reward_t: Float[Array, ""], discount_t: Float[Array, ""], look_t: Look) -> Float[Array, " tables"]:
        """For each table, should it be the one that learns."""


class QLearning(Method):
    """`r + γ max_a q(s', a)` (Watkins 1989; Sutton & Barto 2018, eq. 6.8)."""

    def target(self, reward_t: Float[Array, ""], discount_t: Float[Array, ""], look_t: Look) -> Float[Array, " 1"]:
        return losses.q_target(reward_t[None], discount_t, look_t.q)


class DoubleQLearning(Method):
    """`r + γ q₂(s', argmax_a q₁(s', a))` for q₁, and the other way round (van Hasselt 2010; Sutton & Barto 2018, eq. 6.10)."""

    tables: ClassVar[int] = 2

    def target(self, reward_t: Float[Array, ""], discount_t: Float[Array, ""], look_t: Look) -> Float[Array, " 2"]:
        return losses.double_q_target(jnp.broadcast_to(reward_t, 2), discount_t, look_t.q, look_t.q[::-1])


class Sarsa(Method):
    """`r + γ q(s', a')` (Sutton & Barto 2018, eq. 6.7)."""

    def target(self, reward_t: Float[Array, ""], discount_t: Float[Array, ""], look_t: Look) -> Float[Array, " 1"]:
        return reward_t + discount_t * look_t.q[:, look_t.action]


class ExpectedSarsa(Method):
    """`r + γ Σ_a π(a|s') q(s', a)` (Sutton & Barto 2018, eq. 6.9)."""

    def target(self, reward_t: Float[Array, ""], discount_t: Float[Array, ""], look_t: Look) -> Float[Array, " 1"]:
        return reward_t + discount_t * (look_t.q @ look_t.policy)


def control(method: Method, mdp: MDP, *, gamma: Any, steps: int, key: Key[Array, ""], features: Any = None, first: Any = 0.0) -> tuple[Float[Array, "tables A d"], Trajectory]:  # fmt: skip
    """The weights after so many steps of acting and learning, and what was gone through.

    `features` are `[S, d]` (a table if left out), `first` the weights at the beginning. The next action is chosen before the
    weights change, as SARSA needs it.
    """
    check_share("gamma", gamma)
    x = jnp.eye(mdp.states) if features is None else jnp.asarray(features, jnp.float32)
    legal = jnp.asarray(mdp.legal)

    def look(w: Array, state: Array, key: Array) -> Look:
        q = masked(w @ x[state], jnp.broadcast_to(legal[state][None], w.shape[:2]))
        policy = epsilon_greedy(q.sum(0), legal[state], method.epsilon)
        return Look(q, policy, choose(policy, key))

    def step(carry: tuple[Array, Array, Array], key: Array) -> tuple[tuple[Array, Array, Array], Trajectory]:
        w, state, action = carry
        move, again, act, which = jax.random.split(key, 4)
        follows, reward = mdp.step(state, action, move)
        ends = jnp.asarray(mdp.terminal)[follows]
        went = Trajectory(state, action, reward, 1.0 - ends.astype(jnp.float32), follows)
        now = jnp.where(ends, mdp.begin(again), follows)
        seen = look(w, now, act)
        table = jax.random.randint(which, (), 0, method.tables)
        target = method.target(reward, gamma * went.discount_t, seen)[table]
        error = target - jnp.dot(w[table, action], x[state])
        return (w.at[table, action].add(method.alpha * error * x[state]), now, seen.action), went

    start, choice, key = jax.random.split(key, 3)
    w, state = (
        jnp.broadcast_to(jnp.asarray(first, jnp.float32), (method.tables, mdp.actions, x.shape[1])),
        mdp.begin(start),
    )
    (w, *_), trajectory = jax.lax.scan(step, (w, state, look(w, state, choice).action), jax.random.split(key, steps))
    return w, trajectory


def epsilon_greedy(q: Float[Array, " A"], legal: Bool[Array, " A"], epsilon: Float[Array, ""]) -> Float[Array, " A"]:
    """Chances of the actions: the best ones share what is not spread over all legal ones."""
    best = (legal & (q == q.max())).astype(q.dtype)
    allowed = legal.astype(q.dtype)
    return epsilon * allowed / allowed.sum() + (1.0 - epsilon) * best / best.sum()
