"""Small problems whose answers are known."""

import numpy as np

from yozh.core import require
from yozh.environments.deep_sea import DeepSea
from yozh.tabular.mdp import MDP


def chain(states: int = 5, slip: float = 0.2) -> MDP:
    """Action 0 goes on along the chain and earns nothing but, at its end, 10; action 1 goes back to its beginning and earns 2. With
    chance `slip` the other thing happens (Dearden et al. 1998). It never ends."""
    require(states > 1 and 0 <= slip <= 1, "a chain has two states or more, and slip lies in [0, 1]")
    on, back = np.minimum(np.arange(states) + 1, states - 1), np.zeros(states, int)
    ways = np.stack([np.eye(states)[on], np.eye(states)[back]], 1)
    pays = np.stack([np.where(np.arange(states) == states - 1, 10.0, 0.0), np.full(states, 2.0)], 1)
    return MDP.of((1 - slip) * ways + slip * ways[:, ::-1], (1 - slip) * pays + slip * pays[:, ::-1])


def random_walk(inner: int = 19) -> MDP:
    """States 1 to `inner` in a row, from the middle on, and an end on either side: leaving to the left (action 0) earns -1, to the
    right (action 1) 1 (Sutton & Barto 2018, example 7.1). Each way half of the time, state i is worth `2 i / (inner + 1) - 1`."""
    require(inner > 0 and inner % 2 == 1, f"a row with a middle has an odd number of states, not {inner}")
    at = np.arange(inner + 2)
    ways = np.eye(inner + 2)[np.clip(np.stack([at - 1, at + 1], 1), 0, inner + 1)]
    pays = np.zeros((inner + 2, 2))
    pays[1, 0], pays[inner, 1] = -1.0, 1.0
    return MDP.of(ways, pays, terminal=(0, inner + 1), start=(inner + 1) // 2)


def gamble(actions: int = 10) -> MDP:
    """In state 0, action 1 ends the episode, and action 0 leads to state 1, where each of many actions ends it with a reward from
    N(-0.1, 1): going there is worse, and looks better to who takes the largest of many guesses (Sutton & Barto 2018,
    example 6.7)."""
    ways = np.zeros((3, actions, 3))
    ways[0, 0, 1] = ways[0, 1:, 2] = ways[1, :, 2] = 1.0
    legal = np.ones((3, actions), bool)
    legal[0, 2:] = False
    second = np.arange(3)[:, None] == 1
    return MDP.of(ways, np.where(second, -0.1, 0.0), spread=np.where(second, 1.0, 0.0), terminal=(2,), legal=legal)


def triangle() -> MDP:
    """Three states, with two actions each, and an end that comes after four steps or so; rewards have a deviation of 1.5. Small enough
    for exact gradients, and noisy enough that every way of estimating them differs from every other."""
    ways = np.zeros((4, 2, 4))
    ways[:3] = [
        [[0.1, 0.6, 0.0, 0.3], [0.2, 0.1, 0.4, 0.3]],
        [[0.5, 0.2, 0.1, 0.2], [0.0, 0.2, 0.6, 0.2]],
        [[0.6, 0.1, 0.0, 0.3], [0.0, 0.2, 0.6, 0.2]],
    ]
    pays = [[0.5, 0.0], [0.5, 2.0], [0.0, 4.0], [0.0, 0.0]]
    return MDP.of(ways, pays, spread=1.5, terminal=(3,), start=[0.5, 0.3, 0.2, 0.0])


def deep_sea(size: int = 10, seed: int = 0) -> MDP:
    """`environments.deep_sea.DeepSea` of this size and seed, and an end: its cells that can be reached, row by row, with column at
    most row. An episode takes `size` steps; 0.99 is the best return."""
    right = np.asarray(DeepSea(size, seed).right)
    cells = [(row, column) for row in range(size) for column in range(row + 1)]
    number, end = {cell: i for i, cell in enumerate(cells)}, len(cells)
    ways, pays = np.zeros((end + 1, 2, end + 1)), np.zeros((end + 1, 2))
    for (row, column), i in number.items():
        for action in range(2):
            goes = bool(right[row, column]) == (action == 1)
            ways[i, action, number.get((row + 1, max(column + (1 if goes else -1), 0)), end)] = 1.0
            pays[i, action] = (-0.01 / size + (column == size - 1)) * goes
    return MDP.of(ways, pays, terminal=(end,))


def corridor() -> MDP:
    """Three states in a row, then the end; a step costs 1. Action 1 leads to the right and action 0 to the left, but in the second
    state it is the other way round. A policy that cannot tell the states apart does best to go right with chance 0.59, and then
    needs 11.6 steps (Sutton & Barto 2018, example 13.1)."""
    ways = np.zeros((4, 2, 4))
    ways[0, 0, 0] = ways[0, 1, 1] = ways[1, 0, 2] = ways[1, 1, 0] = ways[2, 0, 1] = ways[2, 1, 3] = 1.0
    return MDP.of(ways, -1.0, terminal=(3,))


def kakade() -> MDP:
    """Two states: action 0 stays, and earns 1 in the first and 2 in the second; action 1 goes to the other and earns nothing. It
    never ends (Kakade 2001, section 4)."""
    ways = np.stack([np.eye(2), np.eye(2)[::-1]], 1)
    return MDP.of(ways, [[1.0, 0.0], [2.0, 0.0]])


def star() -> tuple[MDP, np.ndarray]:
    """Baird's counterexample (Sutton & Barto 2018, section 11.2): action 0 leads to the last of seven states, action 1 to one of
    the others, and nothing is earned. And features `[7, 8]` under which the values of action 0's policy, all 0, are learnt from all
    states alike: semi-gradient TD diverges."""
    ways = np.zeros((7, 2, 7))
    ways[:, 0, 6], ways[:, 1, :6] = 1.0, 1 / 6
    features = np.concatenate([2 * np.eye(7), np.ones((7, 1))], 1)
    features[6, 6:] = 1.0, 2.0
    return MDP.of(ways, 0.0, start=np.full(7, 1 / 7)), features
