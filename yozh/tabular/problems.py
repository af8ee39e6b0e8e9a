"""Small problems whose answers are known."""

import numpy as np

from yozh.core import require
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


def star() -> tuple[MDP, np.ndarray]:
    """Baird's counterexample (Sutton & Barto 2018, section 11.2): action 0 leads to the last of seven states, action 1 to one of
    the others, and nothing is earned. And features `[7, 8]` under which the values of action 0's policy, all 0, are learnt from all
    states alike: semi-gradient TD diverges."""
    ways = np.zeros((7, 2, 7))
    ways[:, 0, 6], ways[:, 1, :6] = 1.0, 1 / 6
    features = np.concatenate([2 * np.eye(7), np.ones((7, 1))], 1)
    features[6, 6:] = 1.0, 2.0
    return MDP.of(ways, 0.0, start=np.full(7, 1 / 7)), features
