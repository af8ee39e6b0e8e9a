"""Bias and variance of generalised advantages over γ and λ, exactly, with a value function that cannot say all.

The gradient is that of the value discounted by 0.99 on a chain of ten states that never ends; the values are linear in the place,
fitted to the true ones of discount γ. Lower γ leaves out what comes late, whatever λ; lower λ relies on the wrong values. Both
lower the variance of one step's contribution `∇log π(a|s) A`, and a little bias is a good price: the map that Schulman et al.
(2016, section 3) speak of.
"""

import sys

import numpy as np
from jaxtyping import Float

from yozh.studies.study import Check, Outcome, drawn, main, panels
from yozh.tabular import Softmax, discounted, evaluate, generalised_advantage, gradient, problems

TRUE_GAMMA = 0.99
GAMMAS = 0.5, 0.8, 0.9, 0.95, 0.98, 0.99
LAMBDAS = 0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 1.0
MDP = problems.chain(10)
POLICY = Softmax.table(MDP)
THETA = np.tile([0.5, -0.5], MDP.states)
CHANCES = POLICY.chances(THETA)
JUDGED = discounted(MDP, CHANCES, TRUE_GAMMA)
SHARE = JUDGED.visits * (1 - TRUE_GAMMA)
BATCH = 10_000
"""Steps whose mean is taken for the gradient, where the bias is weighed against the variance."""
Map = Float[np.ndarray, "gammas lambdas"]


def fitted(gamma: float) -> Float[np.ndarray, " S"]:
    """The line that is nearest to the values of discount γ, where the policy goes."""
    x, weight = np.stack([np.ones(MDP.states), np.arange(MDP.states)], 1), np.sqrt(SHARE)[:, None]
    value = evaluate(MDP, CHANCES, gamma)
    return x @ np.linalg.lstsq(weight * x, weight[:, 0] * value, rcond=None)[0]


def maps() -> tuple[Map, Map]:
    """The bias of the gradient, relative to it, and the variance of a step's contribution, relative to its square."""
    true = gradient(POLICY, THETA, JUDGED) * (1 - TRUE_GAMMA)
    score, size = POLICY.score(THETA), float(np.linalg.norm(true))
    bias, spread = np.zeros((2, len(GAMMAS), len(LAMBDAS)))
    for i, gamma in enumerate(GAMMAS):
        for j, lam in enumerate(LAMBDAS):
            mean, variance = generalised_advantage(MDP, CHANCES, fitted(gamma), gamma, lam)
            found = np.einsum("s,sa,sad,sa->d", SHARE, CHANCES, score, mean)
            second = np.einsum("s,sa,sad,sa->", SHARE, CHANCES, score**2, variance + mean**2)
            bias[i, j], spread[i, j] = np.linalg.norm(found - true) / size, (second - found @ found) / size**2
    return bias, spread


def run() -> Outcome:
    bias, spread = maps()
    error = bias**2 + spread / BATCH
    at = np.unravel_index(error.argmin(), error.shape)
    checks = [
        Check("γ = 0.99, λ = 1: relative bias", bias[-1, -1], 0.0, 1e-8),
        Check("γ = 0.99, λ = 0: relative bias, by the wrong values alone", bias[-1, 0], 0.5, 1.0),
        Check("γ = 0.8, λ = 1: relative bias, by the discount alone", bias[1, -1], 0.2, 0.5),
        Check("γ = 0.99: bias over that at the λ below, the largest", (bias[-1, 1:] / bias[-1, :-1]).max(), 0.0, 1.0),
        Check("λ = 1: bias over that at the γ below, the largest", (bias[1:, -1] / bias[:-1, -1]).max(), 0.0, 1.0),
        Check("γ = 0.99, λ = 1: variance over that at λ = 0", spread[-1, -1] / spread[-1, 0], 10.0, 100.0),
        Check("λ = 1: variance at γ = 0.99 over that at γ = 0.5", spread[-1, -1] / spread[0, -1], 50.0, 500.0),
        Check(f"least error with {BATCH:,} steps: γ", GAMMAS[at[0]], 0.9, 0.98),
        Check(f"least error with {BATCH:,} steps: λ", LAMBDAS[at[1]], 0.8, 0.95),
    ]
    figure, axes = panels(3)
    shown = {
        "bias": bias,
        "variance of a step": np.log10(spread),
        f"log10 of the error of {BATCH:,} steps": np.log10(error),
    }
    for one, (name, grid) in zip(axes, shown.items(), strict=True):
        one.imshow(grid, cmap="viridis", origin="lower", aspect="auto")
        for i, j in np.ndindex(grid.shape):
            said = f"{grid[i, j]:.2f}" if grid is not shown["variance of a step"] else f"{spread[i, j]:.0f}"
            bright = grid[i, j] < (grid.max() + grid.min()) / 2
            one.text(j, i, said, ha="center", va="center", fontsize=6, color="white" if bright else "black")
        one.set(title=name, xlabel="λ", ylabel="γ")
        one.set_xticks(range(len(LAMBDAS)), [f"{x:g}" for x in LAMBDAS])
        one.set_yticks(range(len(GAMMAS)), [f"{x:g}" for x in GAMMAS])
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("gae_map", run))
