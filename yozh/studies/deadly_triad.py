"""Off-policy updates, bootstrapping and shared features together let values run away; what keeps them.

- Two states worth `w` and `2w`, no rewards, and only the transition from the first to the second is ever learnt from: each update
  multiplies w by `1 + α (2γ - 1)`. With one more weight, `v = w (φ + u)`, the same updates come to rest (van Hasselt et al. 2018,
  figure 1), though far from the true value 0.
- Baird's star (Sutton & Barto 2018, section 11.2): TD over all states alike diverges, TDC does not.
"""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from yozh.studies.study import Check, Outcome, drawn, main, near, panels
from yozh.tabular import TD, TDC, Rule, Steps, learn, problems, sweep


def doubling(gamma: float, updates: int, alpha: float = 0.1) -> Float[Array, " updates"]:
    """w after each update of the transition from the state worth w to the one worth 2w; 1 before the first."""
    one, no = jnp.ones((updates, 1)), jnp.zeros(updates)
    return learn(TD(alpha), jnp.ones(1), Steps(one, no, jnp.full(updates, gamma), 2 * one, no + 1.0)).w[:, 0]


def offset(gamma: float, updates: int, alpha: float) -> tuple[Float[Array, " updates"], Float[Array, " updates"]]:
    """The same for `v = w (φ + u)`, with `u` 0 before the first: the value of the first state, and its TD error."""

    def value(weights: Float[Array, " 2"], feature: float) -> Float[Array, ""]:
        return weights[0] * (feature + weights[1])

    def update(weights: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        worth, slope = jax.value_and_grad(value)(weights, 1.0)
        error = gamma * value(weights, 2.0) - worth
        return weights + alpha * error * slope, (worth, error)

    return jax.lax.scan(update, jnp.array([1.0, 0.0]), length=updates)[1]


def star(rule: Rule, gamma: float, sweeps: int) -> tuple[Float[np.ndarray, "sweeps 8"], Float[np.ndarray, "sweeps 7"]]:
    """Weights and values after each sweep over Baird's star."""
    mdp, features = problems.star()
    x = jnp.asarray(features, jnp.float32)
    x_t = jnp.asarray(mdp.transition[:, 0], jnp.float32) @ x
    steps = Steps(x, jnp.zeros(7), jnp.full(7, gamma), x_t, jnp.ones(7))
    found = sweep(rule, jnp.ones(8).at[6].set(10.0), steps, sweeps).w
    return np.asarray(found), np.asarray(found @ x.T)


def largest(x: Array | np.ndarray) -> float:
    return float(np.abs(x).max())


def run() -> Outcome:
    grows, shrinks = doubling(0.99, 100), doubling(0.4, 100)
    worth, error = offset(0.99, 4000, alpha=0.01)
    td, _ = star(TD(0.01), 0.99, 1000)
    tdc, _ = star(TDC(0.01, 0.1), 0.99, 1000)
    _, values = star(TDC(0.2, 0.2), 0.9, 20_000)
    _, astray = star(TD(0.2), 0.9, 1000)
    checks = [
        near("w after 100 updates, gamma 0.99, alpha 0.1", float(grows[-1]), (1 + 0.1 * 0.98) ** 100, 10.0),
        near("w after 100 updates, gamma 0.4, alpha 0.1", float(shrinks[-1]), (1 - 0.1 * 0.2) ** 100, 1e-4),
        Check("v = w (phi + u): largest TD error on the way", largest(error), 10.0, math.inf),
        near("v = w (phi + u): TD error after 4,000 updates", float(error[-1]), 0.0, 0.1),
        near("Baird's star, gamma 0.99: largest weight, TD, 1,000 sweeps", largest(td[-1]), 335.0, 0.1),
        Check("Baird's star, gamma 0.99: largest weight, TDC, ever", largest(tdc), 0.0, 10.0),
        Check("Baird's star, gamma 0.9: largest value, TD, 1,000 sweeps", largest(astray[-1]), 1000.0, math.inf),
        near("Baird's star, gamma 0.9: largest value, TDC, 20,000 sweeps", largest(values[-1]), 0.0, 0.01),
    ]
    figure, (left, middle, right) = panels(3)
    left.semilogy(grows, label="γ = 0.99")
    left.semilogy(shrinks, label="γ = 0.4")
    left.set(title="v = w φ: worth w and 2w", xlabel="updates", ylabel="w")
    middle.plot(worth[:300])
    middle.set(title="v = w (φ + u), γ = 0.99", xlabel="updates", ylabel="value of the first state")
    right.semilogy(np.abs(td).max(1), label="TD")
    right.semilogy(np.abs(tdc).max(1), label="TDC")
    right.set(title="Baird's star, γ = 0.99", xlabel="sweeps", ylabel="largest weight")
    for axes in (left, right):
        axes.legend(frameon=False)
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("deadly_triad", run))
