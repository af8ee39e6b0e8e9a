"""The bank of the first lecture, by each of its methods in turn, with linear policies and equally many months.

    π(lend | client) = σ(θ · φ),    φ the observation and a one,    θ ← θ + α g by Adam, θ = 0 at first

- finite differences: `g_i = (J(θ + ε e_i) - J(θ)) / ε`, each J a mean of sampled months;
- policy gradient: `Σ_t ∇log π(a_t|s_t) w_t`, w the profit of the month that is paid at its end; the profits still to come (G), of
  loans that are settled one by one from here on; Q(s, a), linear for either answer, fitted to G; G less its mean; G - V(s), V linear,
  fitted to G; Q(s, a) - V(s); and the actor-critic's `r + V(s') - V(s)`, whose V learns by TD.

What the best policy earns is known by dynamic programming.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from yozh import returns
from yozh.environments.bank import Bank
from yozh.losses import select
from yozh.studies.study import Check, Outcome, drawn, main, panels
from yozh.tabular import estimates
from yozh.tabular.estimates import Estimate, Sessions

BANK = Bank()
UPDATES, MONTHS, RATE, EPSILON, CRITIC_RATE = 300, 14, 0.05, 0.5, 0.1
SIZE = BANK.weights.shape[-1] + 3
Theta = Float[Array, " n"]
Critic = Float[Array, "3 n"]
"""Linear in φ: V, and Q of either answer."""


class Month(NamedTuple):
    """`[T, ...]`"""

    seen: Float[Array, "T n"]
    """φ."""
    action: Int[Array, " T"]
    reward_t: Float[Array, " T"]


def month(bank: Bank, theta: Theta, key: Key[Array, ""], greedy: bool = False) -> Month:
    """One month of the policy, or of the more likely of its answers."""

    def step(carry: tuple[Any, Array], key: Array) -> tuple[tuple[Any, Array], Month]:
        state, obs = carry
        act, move = jax.random.split(key)
        seen = jnp.append(obs, 1.0)
        chance = jax.nn.sigmoid(theta @ seen)
        action = ((chance > 0.5) if greedy else jax.random.bernoulli(act, chance)).astype(jnp.int32)
        state, after = bank.step(state, action, move)
        return (state, after.obs), Month(seen, action, after.reward)

    opens, key = jax.random.split(key)
    state, first = bank.reset(opens)
    return jax.lax.scan(step, (state, first.obs), jax.random.split(key, bank.clients))[1]


def months(bank: Bank, theta: Theta, n: int, key: Key[Array, ""], greedy: bool = False) -> Month:
    """`[T, n, ...]`"""
    return jax.vmap(lambda key: month(bank, theta, key, greedy), out_axes=1)(jax.random.split(key, n))


def finite_differences(
    bank: Bank, theta: Theta, v: Critic, key: Key[Array, ""]
) -> tuple[Theta, Critic, Float[Array, ""]]:
    """As many months as the others have, shared among `J(θ)` and `J(θ + ε e_i)`."""
    ways = jnp.concatenate([jnp.zeros((1, SIZE)), EPSILON * jnp.eye(SIZE)])
    keys, each = jax.random.split(key, SIZE + 1), MONTHS // (SIZE + 1)
    worth = jax.vmap(lambda way, key: months(bank, theta + way, each, key).reward_t.sum(0).mean())(ways, keys)
    return (worth[1:] - worth[0]) / EPSILON, v, worth[0]


def policy_gradient(estimate: Estimate, critic: str = "none") -> Callable[..., tuple[Theta, Critic, Float[Array, ""]]]:
    """The gradient by an estimate, the critic after learning, and the mean profit. What a critic has learnt from these months
    is used from the next on."""

    def step(bank: Bank, theta: Theta, v: Critic, key: Key[Array, ""]) -> tuple[Theta, Critic, Float[Array, ""]]:
        went = months(bank, theta, MONTHS, key)
        x, one = went.seen, jnp.ones_like(went.reward_t)
        going = one.at[-1].set(0.0)
        value, q = x @ v[0], select(x @ v[1:].T, went.action)
        value_t = jnp.concatenate([value[1:], value[:1]]) * going
        weight = estimate(Sessions(went.reward_t, going, one, value, value_t, q))
        score = (went.action.astype(jnp.float32) - jax.nn.sigmoid(x @ theta))[..., None] * x
        gradient = jnp.einsum("tb,tbn->n", weight, score) / MONTHS
        if critic == "returns":
            go = returns.discounted_return(went.reward_t, going, jnp.zeros(MONTHS))
            flat, lent = x.reshape(-1, SIZE), went.action.ravel() == 1
            v = jax.vmap(lambda of: fitted(flat, go.ravel(), of))(jnp.stack([lent | True, ~lent, lent]))
        elif critic == "TD":
            error = returns.td_error(went.reward_t, going, value, value_t)
            v = v.at[0].add(CRITIC_RATE * jnp.einsum("tb,tbn->n", error, x) / error.size)
        return gradient, v, went.reward_t.sum(0).mean()

    return step


def fitted(x: Float[Array, "N n"], worth: Float[Array, " N"], of: Bool[Array, " N"]) -> Theta:
    """Least squares over those examples."""
    mine = x.T * of.astype(x.dtype)
    return jnp.linalg.solve(mine @ x + 1e-3 * jnp.eye(SIZE), mine @ worth)


METHODS: dict[str, tuple[bool, Callable[..., tuple[Theta, Critic, Float[Array, ""]]]]] = {
    "finite differences": (True, finite_differences),
    "profit of the month": (True, policy_gradient(estimates.total_return)),
    "profit to come, G": (False, policy_gradient(estimates.reward_to_go)),
    "Q(s, a)": (False, policy_gradient(estimates.action_value, "returns")),
    "G - mean": (False, policy_gradient(estimates.mean_baseline)),
    "G - V(s)": (False, policy_gradient(estimates.value_baseline, "returns")),
    "Q(s, a) - V(s)": (False, policy_gradient(estimates.advantage, "returns")),
    "actor-critic": (False, policy_gradient(estimates.td_advantage, "TD")),
}
"""Whether all is paid at the end of the month, and a step."""
GAINS = 0.3, 0.05, -0.25, 0.0, -0.1, -0.2, 0.1
"""What each method is to earn more while it learns than the one before; a baseline changes little where the sign of G does, and a Q of
the months before says less of these than what they paid."""


@functools.partial(jax.jit, static_argnames="name")
def learn(name: str, keys: Key[Array, " N"]) -> tuple[Float[Array, "N updates"], Float[Array, "N"]]:
    """By seed: mean profit of the months of each update, and what the learnt policy earns without chance, over 1,000 months."""
    monthly, method = METHODS[name]
    bank, optimiser = Bank(monthly=monthly), optax.adam(RATE)

    def update(carry: tuple, key: Key[Array, ""]) -> tuple[tuple, Float[Array, ""]]:
        theta, v, state = carry
        gradient, v, profit = method(bank, theta, v, key)
        with jax.numpy_dtype_promotion("standard"):  # Optax raises floats to integer powers
            change, state = optimiser.update(-gradient, state)
        return (theta + change, v, state), profit

    def one(key: Key[Array, ""]) -> tuple[Float[Array, " updates"], Float[Array, ""]]:
        nothing = jnp.zeros(SIZE)
        start = nothing, jnp.zeros((3, SIZE)), optimiser.init(nothing)
        (theta, *_), profits = jax.lax.scan(update, start, jax.random.split(key, UPDATES))
        return profits, months(bank, theta, 1000, jax.random.fold_in(key, 1), greedy=True).reward_t.sum(0).mean()

    return jax.lax.map(one, keys)


def run(repetitions: int = 16) -> Outcome:
    best, keys = float(BANK.worth()[-1, -1]), jax.random.split(jax.random.key(0), repetitions)
    found = {name: jax.tree.map(np.asarray, learn(name, keys)) for name in METHODS}
    checks = []
    for name, (_, end) in found.items():
        least = 0.75 if name == "finite differences" else 0.9
        said = f"{name}: profit of a month at the end, as a share of the best policy's {best:.3f}"
        checks.append(Check(said, float(end.mean()) / best, least, 1.01))
    means = {name: float(curve.mean()) for name, (curve, _) in found.items()}
    for (name, mean), (before, less), gain in zip([*means.items()][1:], means.items(), GAINS, strict=False):
        checks.append(Check(f"{name}: mean profit while learning {mean:.3f}; more than with {before} by", mean - less, gain, best))  # fmt: skip
    figure, (axes,) = panels(1)
    for name, (curve, _) in found.items():
        smooth = curve.mean(0).reshape(-1, 10).mean(1)
        axes.plot(MONTHS * np.arange(5, UPDATES, 10), smooth, label=name)
    axes.axhline(best, linestyle=":", color="grey", label="best policy")
    axes.set(title="the bank", xlabel="months", ylabel="profit of a month")
    axes.legend(frameon=False, fontsize=7)
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("bank", run, 16))
