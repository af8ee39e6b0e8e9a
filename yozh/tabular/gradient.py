"""The value of a softmax policy and its gradient, exactly, in NumPy's float64.

    J(θ) = Σ_s μ(s) V(s),    ∇J(θ) = Σ_s d(s) Σ_a π(a|s; θ) ∇log π(a|s; θ) A(s, a),    d(s) = Σ_t γᵗ Pr(s_t = s)

The policy gradient theorem (Sutton et al. 2000, theorem 1); μ says where episodes begin. With γ = 1 and no end, the same holds of
the average reward, with the stationary distribution as d and the differential values in A.
"""

from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from yozh.core import YozhError, check_share, require
from yozh.tabular.exact import action_values, evaluate
from yozh.tabular.mdp import MDP


class Softmax(eqx.Module):
    """`π(a|s; θ) ∝ exp(θ · x(s, a))` over what is legal (Sutton & Barto 2018, eqs. 13.2 and 13.3)."""

    features: Float[np.ndarray, "S A d"]
    """x(s, a)."""
    legal: Bool[np.ndarray, "S A"]

    @classmethod
    def table(cls, mdp: MDP) -> "Softmax":
        """A number for each state and action: θ is a table `[S, A]`, flattened."""
        return cls(np.eye(mdp.states * mdp.actions).reshape(mdp.states, mdp.actions, -1), np.asarray(mdp.legal))

    @classmethod
    def linear(cls, mdp: MDP, features: Any) -> "Softmax":
        """Weights for each action over features of the state `[S, d]`: θ is `[A, d]`, flattened, and `θ[a] · x(s)` the logit."""
        x = np.asarray(features, float)
        require(
            x.ndim == 2 and len(x) == mdp.states, f"features are [S, d], with S = {mdp.states}, not {list(x.shape)}"
        )
        each = np.einsum("ab,sd->sabd", np.eye(mdp.actions), x)
        return cls(each.reshape(mdp.states, mdp.actions, -1), np.asarray(mdp.legal))

    @property
    def size(self) -> int:
        """Length of θ."""
        return self.features.shape[2]

    def chances(self, theta: Float[np.ndarray, " d"]) -> Float[np.ndarray, "S A"]:
        logits = np.where(self.legal, self.features @ theta, -np.inf)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)

    def score(self, theta: Float[np.ndarray, " d"]) -> Float[np.ndarray, "S A d"]:
        """`∇log π(a|s) = x(s, a) - Σ_b π(b|s) x(s, b)`."""
        return self.features - np.einsum("sa,sad->sd", self.chances(theta), self.features)[:, None]


def occupancy(mdp: MDP, policy: Float[np.ndarray, "S A"], gamma: float) -> Float[np.ndarray, " S"]:
    """`d = μ (I - γ P)⁻¹`: how often each state is visited, a visit at time t counting γᵗ; times `policy` that of each action there.

    Adds up to 1 / (1 - γ) where nothing ends. Raises `YozhError` where it is not finite: gamma 1, and no end in reach.
    """
    evaluate(mdp, policy, gamma)
    p = np.einsum("sa,sat->st", policy, mdp.transition)
    return np.linalg.solve(np.eye(mdp.states) - gamma * p.T, np.asarray(mdp.start))


class Judged(NamedTuple):
    """What a policy is worth, and where it goes."""

    worth: float
    """J: discounted from the start, or by step."""
    visits: Float[np.ndarray, " S"]
    """d."""
    value: Float[np.ndarray, " S"]
    q: Float[np.ndarray, "S A"]
    """0 where an action is not legal."""

    @property
    def advantage(self) -> Float[np.ndarray, "S A"]:
        """`A(s, a) = Q(s, a) - V(s)`; what is not legal has chance 0, so that its number says nothing."""
        return self.q - self.value[:, None]


def discounted(mdp: MDP, policy: Float[np.ndarray, "S A"], gamma: float) -> Judged:
    """`J = μ · V`."""
    value = evaluate(mdp, policy, gamma)
    q = np.where(mdp.legal, action_values(mdp, value, gamma), 0.0)
    return Judged(float(mdp.start @ value), occupancy(mdp, policy, gamma), value, q)


def average(mdp: MDP, policy: Float[np.ndarray, "S A"]) -> Judged:
    """`J = Σ_s ρ(s) r(s)`, ρ the stationary distribution, and the differential values `V = r - J + P V` with `ρ · V = 0`
    (Sutton & Barto 2018, section 10.3). Raises `YozhError` unless there is one such distribution."""
    p = np.einsum("sa,sat->st", policy, mdp.transition)
    away = np.eye(mdp.states) - p
    require(not mdp.terminal.any(), "an average reward is for problems that never end; this one has terminal states")
    if np.linalg.matrix_rank(away, tol=1e-14) != mdp.states - 1:
        raise YozhError(
            "the policy has no single stationary distribution: some states are never left, or never reached"
        )
    one = np.r_[np.zeros(mdp.states), 1.0]
    visits = np.linalg.lstsq(np.vstack([away.T, np.ones(mdp.states)]), one, rcond=None)[0]
    reward = (policy * mdp.reward).sum(1)
    worth = float(visits @ reward)
    value = np.linalg.lstsq(np.vstack([away, visits]), np.r_[reward - worth, 0.0], rcond=None)[0]
    q = np.where(mdp.legal, action_values(mdp, value, 1.0) - worth, 0.0)
    return Judged(worth, visits, value, q)


def gradient(policy: Softmax, theta: Float[np.ndarray, " d"], judged: Judged) -> Float[np.ndarray, " d"]:
    """`∇J = Σ_s d(s) Σ_a π(a|s) ∇log π(a|s) A(s, a)`; `judged` is of the policy at θ."""
    return np.einsum("s,sa,sad,sa->d", judged.visits, policy.chances(theta), policy.score(theta), judged.advantage)


def fisher(
    policy: Softmax, theta: Float[np.ndarray, " d"], visits: Float[np.ndarray, " S"]
) -> Float[np.ndarray, "d d"]:
    """`F = Σ_s d(s) Σ_a π(a|s) ∇log π(a|s) ∇log π(a|s)ᵀ` (Kakade 2001, eq. 2)."""
    score = policy.score(theta)
    return np.einsum("s,sa,sad,sae->de", visits, policy.chances(theta), score, score)


def natural_gradient(policy: Softmax, theta: Float[np.ndarray, " d"], judged: Judged) -> Float[np.ndarray, " d"]:
    """`F⁻¹ ∇J` (Kakade 2001), the shortest such vector where F is singular, as it is for a table."""
    return np.linalg.lstsq(fisher(policy, theta, judged.visits), gradient(policy, theta, judged), rcond=1e-12)[0]


def generalised_advantage(mdp: MDP, policy: Float[np.ndarray, "S A"], value: Float[np.ndarray, " S"], gamma: float, lam: float) -> tuple[Float[np.ndarray, "S A"], Float[np.ndarray, "S A"]]:  # fmt: skip
    """Mean and variance of `A = δ + γ λ A'`, `δ = r + γ V(s') - V(s)` (Schulman et al. 2016, eq. 16), after each state and action, for
    any V, right or wrong, in sessions without a cut: `[S, A]` each."""
    check_share("gamma", gamma)
    check_share("lam", lam)
    p, value = np.asarray(mdp.transition), np.where(mdp.terminal, 0.0, value)
    fall = gamma * lam
    delta = np.where(mdp.legal, mdp.reward, 0.0)[..., None] + gamma * value - value[:, None, None]
    going = np.eye(mdp.states) - fall * np.einsum("sa,sat->st", policy, p)
    one = np.where(mdp.terminal[:, None], 0.0, (p * delta).sum(2))
    ahead = np.linalg.solve(going, (policy * one).sum(1))
    mean = one + fall * p @ ahead
    rest = (p * (delta**2 + 2 * fall * delta * ahead)).sum(2) + mdp.spread**2
    squared = going + fall * (1 - fall) * np.einsum("sa,sat->st", policy, p)
    second = rest + fall**2 * p @ np.linalg.solve(squared, (policy * rest).sum(1))
    return mean, second - mean**2
