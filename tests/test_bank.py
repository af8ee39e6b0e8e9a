"""The bank: its books, its best policy by dynamic programming against what is earned, and against enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yozh.core import YozhError
from yozh.environments import make
from yozh.environments.bank import Bank

RESET = jax.jit(jax.vmap(lambda bank, key: bank.reset(key), (None, 0)))
STEP = jax.jit(jax.vmap(lambda bank, state, action, key: bank.step(state, action, key), (None, 0, 0, 0)))


def months(bank: Bank, lends, n: int = 4000):
    """What `lends(observations [n, d])` earns in each of n months, all its steps `[T, n]`, and whom it lent to."""
    state, said = RESET(bank, jax.random.split(jax.random.key(0), n))
    rewards, lent, obs = [], [], np.asarray(said.obs)
    for t in range(bank.clients):
        action = jnp.asarray(lends(obs), jnp.int32)
        state, said = STEP(bank, state, action, jax.random.split(jax.random.key(t + 1), n))
        rewards.append(np.asarray(said.reward))
        lent.append(np.asarray(action))
        obs = np.asarray(said.obs)
    assert bool(said.last.all()) and not bool(said.discount.any())
    return np.stack(rewards), np.stack(lent), obs


def everybody(obs: np.ndarray) -> np.ndarray:
    return np.ones(len(obs), bool)


@pytest.mark.parametrize("budget", [3, 12])
def test_the_best_policy_earns_what_the_equations_say(budget: int):
    bank = Bank(clients=12, budget=budget)
    reward, _, _ = months(bank, bank.best)
    error = reward.sum(0).std() / np.sqrt(reward.shape[1])
    np.testing.assert_allclose(reward.sum(0).mean(), bank.worth()[-1, -1], atol=3 * error)
    assert (reward[:-1] == 0).all(), "all is paid at the end"
    naive, _, left = months(bank, everybody)
    assert naive.sum(0).mean() < 0 and (left[:, -1] == 0).all()


def test_nobody_gets_money_that_is_not_there():
    bank = Bank(clients=6, budget=2, monthly=False)
    reward, _, _ = months(bank, everybody, n=50)
    assert (reward[:2] != 0).all() and (reward[2:] == 0).all()
    assert set(np.unique(reward[:2])) == {np.float32(-1.0), np.float32(0.5)}


def test_payment_by_step_and_by_month_are_the_same_money():
    """The same keys draw the same clients, who pay back alike."""
    by_step, by_month = (months(Bank(clients=6, monthly=m), lambda obs: obs[:, 0] > 0, n=50)[0] for m in (False, True))
    np.testing.assert_allclose(by_step.sum(0), by_month.sum(0), atol=1e-5)
    assert (by_step[:-1] != 0).any()


def test_chances_of_paying_back():
    bank = Bank(weights=(2.0,), bias=-0.5, interest=0.25, clients=1, budget=1)
    state, said = RESET(bank, jax.random.split(jax.random.key(0), 20_000))
    _, after = STEP(bank, state, jnp.ones(20_000, jnp.int32), jax.random.split(jax.random.key(1), 20_000))
    z = 2.0 * np.asarray(said.obs[:, 0]) - 0.5
    for low, high in itertools.pairwise((-3.0, -1.0, 0.0, 1.0, 3.0)):
        here = (z > low) & (z <= high)
        np.testing.assert_allclose((after.reward[here] > 0).mean(), (1 / (1 + np.exp(-z[here]))).mean(), atol=0.03)


def test_the_equations_as_written_out():
    """Two clients and one loan, by a sum over draws."""
    bank = Bank(clients=2, budget=1)
    z = np.random.default_rng(0).normal(size=400_000) * np.linalg.norm(bank.weights) + float(bank.bias)
    gain = 1.5 / (1 + np.exp(-z)) - 1
    later = np.maximum(gain, 0).mean()
    np.testing.assert_allclose(bank.worth()[1:, 1], [later, np.maximum(gain, later).mean()], atol=2e-3)
    with pytest.raises(YozhError, match="budget must be positive, not 0"):
        Bank(budget=0)
    assert make("Bank", 2, clients=5).spec.observation.shape == (5,)
