"""The bank of the first lecture: clients come and ask for a loan, and at the end of the month the profit is counted."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from yozh.core import Env, Spec, TimeStep, leaf, require, restart, static, transition
from yozh.spaces import Box, Discrete


class Books(NamedTuple):
    client: Float[Array, " d"]
    """Features of who asks now."""
    served: Int[Array, ""]
    lent: Int[Array, ""]
    profit: Float[Array, ""]
    """Of this month's loans so far, which is not paid yet."""


class Bank(Env):
    """A month of `clients`, one a step, each with normal features. Action 1 lends 1 to who asks, action 0 does not.

    A client pays back with chance `σ(weights · features + bias)`, and then with `interest` on top; else the loan is lost. There is
    money for `budget` loans, and none comes back before the month ends: where it is used up, nobody gets anything. The
    month's profit is the reward of its last step or, without `monthly`, each loan's profit that of its own step. Who lends to
    everybody makes a loss. Observation: the client's features, then the clients to come, this one included, and the loans that there
    is money for, both as shares of `clients`.
    """

    weights: Array = leaf((1.5, -1.0, 0.5))
    """What the features say of a client."""
    bias: Array = leaf(0.0)
    interest: Array = leaf(0.5)
    clients: int = static(30)
    budget: int = static(10)
    monthly: bool = static(True)
    """Whether all is paid at the end of the month."""

    def __check_init__(self) -> None:
        for name in ("clients", "budget"):
            require(getattr(self, name) > 0, f"Bank: {name} must be positive, not {getattr(self, name)}")

    @property
    def spec(self) -> Spec:
        return Spec(Box((self.weights.shape[-1] + 2,), -np.inf, np.inf), Discrete(2), horizon=self.clients)

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        none = jnp.zeros((), jnp.int32)
        books = Books(jax.random.normal(key, self.weights.shape), none, none, jnp.zeros(()))
        return books, restart(self._observe(books))

    def step(self, state: Books, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        comes, pays = jax.random.split(key)
        lends = (action == 1) & (state.lent < self.budget)
        back = jax.random.bernoulli(pays, jax.nn.sigmoid(self.weights @ state.client + self.bias))
        gain = jnp.where(lends, jnp.where(back, self.interest, -1.0), 0.0)
        profit, served = state.profit + gain, state.served + 1
        books = Books(
            jax.random.normal(comes, self.weights.shape), served, state.lent + lends.astype(jnp.int32), profit
        )
        over = served == self.clients
        reward = jnp.where(over, profit, 0.0) if self.monthly else gain
        return books, transition(self._observe(books), reward, terminated=over)

    def _observe(self, books: Books) -> Float[Array, " d2"]:
        left = jnp.stack([self.clients - books.served, self.budget - books.lent]).astype(jnp.float32)
        return jnp.concatenate([books.client, left / self.clients])

    def worth(self) -> Float[np.ndarray, "clients1 budget1"]:
        """What the best policy earns on average with so many clients to come and money for so many loans, by dynamic programming over
        the normal `z = weights · features + bias`; `worth()[-1, -1]` is that of a month."""
        away = np.linspace(-9, 9, 6001)
        chance = np.exp(-(away**2) / 2)
        gain = self._gain(float(self.bias) + away * float(np.linalg.norm(self.weights)))[:, None]
        value = np.zeros((self.clients + 1, self.budget + 1))
        for n in range(1, self.clients + 1):
            best = np.maximum(value[n - 1, 1:], gain + value[n - 1, :-1])
            value[n, 1:] = chance @ best / chance.sum()
        return value

    def best(self, obs: Float[np.ndarray, "N d2"]) -> Bool[np.ndarray, " N"]:
        """Whom the best policy lends to: who is worth more than what the money would earn later."""
        left = np.rint(obs[:, -2:] * self.clients).astype(int)
        value, (n, money) = self.worth(), (np.maximum(left[:, 0], 1), np.maximum(left[:, 1], 1))
        gain = self._gain(obs[:, :-2] @ np.asarray(self.weights, float) + float(self.bias))
        return (left[:, 1] > 0) & (gain > value[n - 1, money] - value[n - 1, money - 1])

    def _gain(self, z: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Expected profit of a loan."""
        return (1 + float(self.interest)) / (1 + np.exp(-z)) - 1
