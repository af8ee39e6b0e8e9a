"""Least-squares value iteration against exact value iteration and normal equations, and its optimism in the deep sea."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_tabular import random_mdp
from yozh.core import YozhError
from yozh.environments.deep_sea import DeepSea, Place
from yozh.tabular import MDP, Seen, lsvi, lsvi_ucb, one_hot, problems, value_iteration

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "mdp", [random_mdp(), problems.chain(), problems.random_walk(5)], ids=["random", "chain", "walk"]
)
def test_one_hot_features_make_it_exact_value_iteration(mdp: MDP):
    x = one_hot(mdp)
    q = lsvi(x, mdp.legal, Seen.everything(mdp, x), gamma=0.9, sweeps=400)
    np.testing.assert_allclose(q.max(1), value_iteration(mdp, 0.9), atol=1e-8)
    assert np.isneginf(q[~mdp.legal]).all()


def test_the_fit_solves_the_normal_equations():
    """Transitions added one by one, with features of their own, against a matrix inverse."""
    mdp, lam, gamma = random_mdp(), 0.7, 0.9
    x, seen = RNG.normal(size=(6, 3, 4)), Seen.nothing(random_mdp(), np.zeros((6, 3, 4)), 0.7)
    value, gram, right = RNG.normal(size=6), lam * np.eye(4), np.zeros(4)
    squared = (x**2).sum(2) / lam
    for _ in range(30):
        s, a, follows, reward = RNG.integers(5), RNG.integers(3), int(RNG.integers(6)), float(RNG.normal())
        follows = None if follows == 5 else follows
        squared -= (x @ seen.add(x[s, a], reward, follows)) ** 2
        gram += np.outer(x[s, a], x[s, a])
        right += x[s, a] * (reward + (0.0 if follows is None else gamma * value[follows]))
    np.testing.assert_allclose(seen.fit(value, gamma), np.linalg.solve(gram, right), atol=1e-10)
    np.testing.assert_allclose(squared, np.einsum("sad,de,sae->sa", x, np.linalg.inv(gram), x), atol=1e-10)
    assert mdp.states == 6
    with pytest.raises(YozhError, match="lam must be positive"):
        Seen.nothing(mdp, x, 0.0)


def test_bonus_and_ceiling_come_before_the_largest():
    mdp = problems.random_walk(5)
    x, bonus = one_hot(mdp), np.zeros((7, 2))
    seen, bonus[5, 0] = Seen.everything(mdp, one_hot(mdp)), 3.0
    q = lsvi(x, mdp.legal, seen, gamma=1.0, sweeps=20, bonus=bonus, ceiling=2.0)
    assert q[5, 0] == 2.0 and q[4, 1] == 2.0


@pytest.mark.parametrize("size, seed", [(4, 0), (5, 7)])
def test_the_sea_as_a_table_is_the_environment(size: int, seed: int):
    mdp, env = problems.deep_sea(size, seed), DeepSea(size, seed)
    cells = [(row, column) for row in range(size) for column in range(row + 1)]
    step = jax.jit(lambda row, column, action: env.step(Place(row, column), action, jax.random.key(0)))
    for (i, (row, column)), action in itertools.product(enumerate(cells), range(2)):
        place, said = step(*(jnp.int32(x) for x in (row, column, action)))
        follows = int(mdp.transition[i, action].argmax())
        assert bool(said.last) == bool(mdp.terminal[follows]) == (row == size - 1)
        assert said.last or cells[follows] == (int(place.row), int(place.column))
        np.testing.assert_allclose(mdp.reward[i, action], said.reward, rtol=1e-6)
    np.testing.assert_allclose(value_iteration(mdp, 1.0)[0], 0.99)


def test_optimism_solves_the_sea():
    sea = problems.deep_sea(10, 0)
    returns = np.array([*itertools.islice(lsvi_ucb(sea, one_hot(sea), horizon=10), 950)])
    first = int((returns > 0.5).argmax())
    assert 429 <= first + 1 <= 923 and (returns[first:] > 0.98).all()
    blind = np.array([*itertools.islice(lsvi_ucb(sea, one_hot(sea), horizon=10, beta=0.0, epsilon=0.1), 300)])
    assert blind.max() < 0.5
