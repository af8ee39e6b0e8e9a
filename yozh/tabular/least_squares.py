"""Least-squares value iteration: action values linear in features, `Q(s, a) = w · x(s, a)`, fitted to all that was seen.

    w ← Λ⁻¹ Σ_i x_i [ r_i + γ max_a Q(s'_i, a) ],    Λ = λ I + Σ_i x_i x_iᵀ
    Q(s, a) = min( w · x(s, a) + β √( x(s, a)ᵀ Λ⁻¹ x(s, a) ),  H )

With one-hot features, λ = 0 and every transition seen it is exact value iteration. The second line is the optimism of LSVI-UCB (Jin et
al. 2020, algorithm 1): what has seldom been tried counts as good. In NumPy's float64.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from yozh.core import check_share, require
from yozh.tabular.mdp import MDP

Features = Float[np.ndarray, "S A d"]


def one_hot(mdp: MDP) -> Features:
    """A feature for each state and action."""
    return np.eye(mdp.states * mdp.actions).reshape(mdp.states, mdp.actions, -1)


@dataclasses.dataclass
class Seen:
    """Sums over transitions, all that the fit needs of them."""

    inverse: Float[np.ndarray, "d d"]
    """Λ⁻¹."""
    reward: Float[np.ndarray, " d"]
    """`Σ_i x_i r_i`."""
    follows: Float[np.ndarray, "d S"]
    """`Σ_i x_i` of the transitions to each state; nothing where they ended."""

    @classmethod
    def nothing(cls, mdp: MDP, features: Features, lam: float) -> "Seen":
        require(lam > 0, f"lam must be positive before anything was seen, not {lam:g}")
        size = features.shape[2]
        return cls(np.eye(size) / lam, np.zeros(size), np.zeros((size, mdp.states)))

    @classmethod
    def everything(cls, mdp: MDP, features: Features, lam: float = 0.0) -> "Seen":
        """Every legal action of every state once, as often to each next state as its chance is; of many fits the smallest."""
        x = features[mdp.legal & ~mdp.terminal[:, None]]
        chances, reward = (y[mdp.legal & ~mdp.terminal[:, None]] for y in (mdp.transition, mdp.reward))
        gram = x.T @ x + lam * np.eye(x.shape[1])
        return cls(np.linalg.pinv(gram, hermitian=True), x.T @ reward, x.T @ np.where(mdp.terminal, 0.0, chances))

    def add(self, x: Float[np.ndarray, " d"], reward: float, follows: int | None) -> Float[np.ndarray, " d"]:
        """One more transition, `follows` being nothing at an end: `Λ⁻¹` by Sherman and Morrison. The old `Λ⁻¹ x / √(1 + xᵀ Λ⁻¹ x)`."""
        along = self.inverse @ x
        along /= np.sqrt(1 + x @ along)
        self.inverse -= np.outer(along, along)
        self.reward += reward * x
        if follows is not None:
            self.follows[:, follows] += x
        return along

    def fit(self, value: Float[np.ndarray, " S"], gamma: float) -> Float[np.ndarray, " d"]:
        """w, if the next states are worth this."""
        return self.inverse @ (self.reward + gamma * self.follows @ value)


def lsvi(features: Features, legal: Bool[np.ndarray, "S A"], seen: Seen, *, gamma: float, sweeps: int,
         bonus: float | Float[np.ndarray, "S A"] = 0.0, ceiling: float = np.inf) -> Float[np.ndarray, "S A"]:  # fmt: skip
    """Q after so many sweeps from 0, minus infinity where an action is not legal."""
    check_share("gamma", gamma)
    value = np.zeros(len(features))
    q = np.where(legal, 0.0, -np.inf)
    for _ in range(sweeps):
        q = np.where(legal, np.minimum(features @ seen.fit(value, gamma) + bonus, ceiling), -np.inf)
        value = q.max(1)
    return q


def lsvi_ucb(mdp: MDP, features: Features, *, horizon: int, beta: float = 0.3, lam: float = 1.0, epsilon: float = 0.0,
             seed: int = 0) -> Iterator[float]:  # fmt: skip
    """The return of each episode of at most `horizon` steps, without end, of a learner who fits anew before each and takes the best
    action, one of the best by chance, or with chance `epsilon` any. Nothing is discounted.

    The time is to be part of the state, as it is in `problems.deep_sea`: all steps share one w.
    """
    rng, seen = np.random.default_rng(seed), Seen.nothing(mdp, features, lam)
    squared = (features**2).sum(2) / lam
    while True:
        bonus = beta * np.sqrt(np.maximum(squared, 0.0))
        q = lsvi(features, mdp.legal, seen, gamma=1.0, sweeps=horizon, bonus=bonus, ceiling=float(horizon))
        state, earned = int(rng.choice(mdp.states, p=mdp.start)), 0.0
        for _ in range(horizon):
            explores = rng.random() < epsilon
            action = int(rng.choice(np.flatnonzero(mdp.legal[state] if explores else q[state] == q[state].max())))
            follows = int(rng.choice(mdp.states, p=mdp.transition[state, action]))
            reward = float(mdp.reward[state, action] + mdp.spread[state, action] * rng.normal())
            ends = bool(mdp.terminal[follows])
            squared -= (features @ seen.add(features[state, action], reward, None if ends else follows)) ** 2
            earned, state = earned + reward, follows
            if ends:
                break
        yield earned
