"""Exact solutions, in NumPy's float64."""

import numpy as np
from jaxtyping import Float

from yozh.core import YozhError, check_share, require
from yozh.tabular.mdp import MDP

SAME = 1e-12
"""Advantages below it, of the largest value, are rounding."""


def action_values(mdp: MDP, value: Float[np.ndarray, " S"], gamma: float) -> Float[np.ndarray, "S A"]:
    """`q(s, a) = r(s, a) + γ Σ_s' p(s' | s, a) v(s')`, minus infinity where an action is not legal."""
    return np.where(mdp.legal, mdp.reward + gamma * np.asarray(mdp.transition) @ value, -np.inf)


def greedy(q: Float[np.ndarray, "S A"]) -> Float[np.ndarray, "S A"]:
    """The policy that takes the best action, the first of them where several are."""
    return np.eye(q.shape[1])[q.argmax(1)]


def evaluate(mdp: MDP, policy: Float[np.ndarray, "S A"], gamma: float) -> Float[np.ndarray, " S"]:
    """The value of a policy: `v = (I - γ P)⁻¹ r` (Sutton & Barto 2018, eq. 4.4, solved).

    Raises `YozhError` where it is not finite: gamma 1, and no end in reach.
    """
    check_share("gamma", gamma)
    p = np.einsum("sa,sat->st", policy, mdp.transition)
    try:
        value = np.linalg.solve(np.eye(mdp.states) - gamma * p, (policy * mdp.reward).sum(1))
    except np.linalg.LinAlgError:
        value = np.full(mdp.states, np.nan)
    if not np.isfinite(value).all():
        raise YozhError(f"the policy has no value: with gamma {gamma:g}, some states never come to an end")
    return value


def value_iteration(mdp: MDP, gamma: float, *, tolerance: float = 1e-12, sweeps: int = 1_000_000) -> Float[np.ndarray, " S"]:  # fmt: skip
    """`v ← max_a q(·, a)` until it is within `tolerance` of the value of the best policy, relative to the largest; `YozhError` after
    too many sweeps (with gamma 1 a change smaller than that is taken for the end)."""
    check_share("gamma", gamma)
    value, bound = np.zeros(mdp.states), gamma / (1 - gamma) if gamma < 1 else 1.0
    for _ in range(sweeps):
        value, before = action_values(mdp, value, gamma).max(1), value
        if bound * np.abs(value - before).max() <= tolerance * max(1.0, np.abs(value).max()):
            return value
    raise YozhError(f"value iteration did not come to rest in {sweeps:,} sweeps; gamma is {gamma:g}")


def policy_iteration(mdp: MDP, gamma: float) -> list[tuple[Float[np.ndarray, "S A"], Float[np.ndarray, " S"]]]:
    """Every policy on the way with its value, from the first legal action of each state to the best (Howard 1960).

    Each is no worse than the one before, in any state, and there are finitely many.
    """
    policy, found = greedy(np.where(mdp.legal, 0.0, -np.inf)), []
    while True:
        value = evaluate(mdp, policy, gamma)
        found.append((policy, value))
        q = action_values(mdp, value, gamma)
        better = q.max(1) > value + SAME * max(1.0, np.abs(value).max())
        if not better.any():
            return found
        require(len(found) < 1000 * mdp.states, "policy iteration goes round in circles")
        policy = np.where(better[:, None], greedy(q), policy)
