"""Environments so small that a failure says where the fault is; the true values are stated with each.

From one to the next, one more part of an agent must work: its value, then its view, its discounting, its choice, both
together, its memory; then the kinds of actions and observations.
"""

import abc

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from yozh.core import Env, Spec, TimeStep, require, restart, static, transition
from yozh.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

SIGN = Box((1,), -1.0, 1.0)


class OneStep(Env):
    """Something random is seen, one action taken, a reward given, and that is all."""

    @property
    def spec(self) -> Spec:
        return Spec(SIGN, Discrete(2), horizon=1)

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        seen = self.draw(key)
        return seen, restart(seen)

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        return state, transition(state, self.reward(state, action), terminated=True)

    def draw(self, key: Key[Array, ""]) -> PyTree:
        return _sign(key)

    @abc.abstractmethod
    def reward(self, seen: PyTree, action: PyTree) -> Array: ...


class Constant(OneStep):
    """Observation 0 and reward 1 whatever happens: the value is 1."""

    def draw(self, key: Key[Array, ""]) -> PyTree:
        return jnp.zeros((1,))

    def reward(self, seen: PyTree, action: PyTree) -> Array:
        return jnp.ones(())


class Seen(OneStep):
    """The reward is the observation, a random sign, and so is the value."""

    def reward(self, seen: PyTree, action: PyTree) -> Array:
        return seen[0]


class Chosen(OneStep):
    """Action 1 earns 1, action 0 costs 1."""

    def reward(self, seen: PyTree, action: PyTree) -> Array:
        return jnp.where(action == 1, 1.0, -1.0)


class Matched(OneStep):
    """Action 1 is right at +1 and action 0 at -1: 1 if right, else -1."""

    def reward(self, seen: PyTree, action: PyTree) -> Array:
        return jnp.where((action == 1) == (seen[0] > 0), 1.0, -1.0)


class Aim(OneStep):
    """The action, in [-1, 1], should be half the sign seen; the reward is minus the squared distance."""

    @property
    def spec(self) -> Spec:
        return Spec(SIGN, SIGN, horizon=1)

    def reward(self, seen: PyTree, action: PyTree) -> Array:
        return -((action[0] - seen[0] / 2) ** 2)


class Several(OneStep):
    """A choice of 2 and one of 3; the reward is the share of them that is as observed."""

    @property
    def spec(self) -> Spec:
        return Spec(Box((2,), 0.0, 2.0), MultiDiscrete((2, 3)), horizon=1)

    def draw(self, key: Key[Array, ""]) -> PyTree:
        return jax.random.randint(key, (2,), 0, jnp.array([2, 3])).astype(jnp.float32)

    def reward(self, seen: PyTree, action: PyTree) -> Array:
        return (action.astype(jnp.float32) == seen).mean()


class Bits(OneStep):
    """Three switches; the reward is the share of them that is as observed."""

    @property
    def spec(self) -> Spec:
        return Spec(Box((3,), 0.0, 1.0), MultiBinary(3), horizon=1)

    def draw(self, key: Key[Array, ""]) -> PyTree:
        return jax.random.bernoulli(key, shape=(3,)).astype(jnp.float32)

    def reward(self, seen: PyTree, action: PyTree) -> Array:
        return (action.astype(jnp.float32) == seen).mean()


class Mixed(OneStep):
    """`Several` and `Bits` at once, observed and acted on by name; the reward is the mean of theirs."""

    @property
    def spec(self) -> Spec:
        several, bits = Several().spec, Bits().spec
        return Spec(
            Dict.of({"bits": bits.observation, "several": several.observation}),
            Dict.of({"bits": bits.action, "several": several.action}),
            horizon=1,
        )

    def draw(self, key: Key[Array, ""]) -> PyTree:
        return {"bits": Bits().draw(key), "several": Several().draw(jax.random.fold_in(key, 1))}

    def reward(self, seen: PyTree, action: PyTree) -> Array:
        parts = {"bits": Bits(), "several": Several()}
        return sum((env.reward(seen[k], action[k]) for k, env in parts.items()), jnp.zeros(())) / len(parts)


class Pictured(OneStep):
    """A small image, all black or all white, and a sign: action 1 is right if both say yes or both no; 1 if right, else -1."""

    @property
    def spec(self) -> Spec:
        return Spec(Dict.of({"image": Box((8, 8, 1), 0.0, 255.0, "uint8"), "vector": SIGN}), Discrete(2), horizon=1)

    def draw(self, key: Key[Array, ""]) -> PyTree:
        white = jax.random.bernoulli(jax.random.fold_in(key, 1))
        return {"image": jnp.full((8, 8, 1), jnp.where(white, 255, 0), jnp.uint8), "vector": _sign(key)}

    def reward(self, seen: PyTree, action: PyTree) -> Array:
        agree = (seen["image"][0, 0, 0] > 0) == (seen["vector"][0] > 0)
        return jnp.where((action == 1) == agree, 1.0, -1.0)


class Forbidden(Env):
    """Two of four actions are legal, which only the mask tells: 1 for a legal one, -1 for an illegal one, over 1 step."""

    @property
    def spec(self) -> Spec:
        return Spec(Box((1,), 0.0, 1.0), Discrete(4), legal=True, horizon=1)

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        legal = self._draw(key)
        return legal, restart(jnp.zeros((1,)), {"legal": legal})

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        reward = jnp.where(state[action], 1.0, -1.0)
        legal = self._draw(key)
        return legal, transition(jnp.zeros((1,)), reward, terminated=True, extras={"legal": legal})

    def _draw(self, key: Key[Array, ""]) -> Bool[Array, "4"]:
        return jax.random.permutation(key, jnp.arange(4) < 2)


class Later(Env):
    """Two steps, reward 1 on the second: the values are gamma at observation 0 and 1 at observation 1."""

    @property
    def spec(self) -> Spec:
        return Spec(Box((1,), 0.0, 2.0), Discrete(2), horizon=2)

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        t = jnp.zeros((1,))
        return t, restart(t)

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        t = state + 1.0
        return t, transition(t, t[0] - 1.0, terminated=t[0] > 1.0)


class Recall(Env):
    """A sign is shown once; the last of `length` actions must repeat it (1 for +1, 0 for -1): 1 if so, else -1.

    Observation: the sign at first and 0 later, and the share of the episode that is over. Without memory the mean
    return is 0 at best.
    """

    length: int = static(3)

    @property
    def spec(self) -> Spec:
        return Spec(Box((2,), -1.0, 1.0), Discrete(2), horizon=self.length)

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        sign = _sign(key)[0]
        return (sign, jnp.zeros((), jnp.int32)), restart(jnp.stack([sign, jnp.zeros(())]))

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        sign, t = state[0], state[1] + 1
        over = t >= self.length
        reward = jnp.where(over, jnp.where((action == 1) == (sign > 0), 1.0, -1.0), 0.0)
        obs = jnp.stack([jnp.zeros(()), t.astype(jnp.float32) / self.length])
        return (sign, t), transition(obs, reward, terminated=over)


class Endless(Env):
    """One state and reward 1 for ever, only cut after `limit` steps: the value is 1 / (1 - gamma), 100 at .99.

    An agent that takes truncation for termination sees less. With `ends` the episodes do terminate, for contrast.
    """

    limit: int = static(10)
    ends: bool = static(False)

    @property
    def spec(self) -> Spec:
        return Spec(Box((1,), 0.0, 1.0), Discrete(2), horizon=self.limit)

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        return jnp.zeros((), jnp.int32), restart(jnp.ones((1,)))

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        t = state + 1
        over = t >= self.limit
        return t, transition(jnp.ones((1,)), 1.0, terminated=over & self.ends, truncated=over)


_CHOICES = {"discrete": (4,), "several": (2, 3), "bits": (1, 1), "continuous": ()}


class Medley(Env):
    """Two bits are seen and must be said, which takes as many parts of an agent as are switched on: 1 for both, else 0.

    A vector shows them as two signs, with `image` the halves of a picture; with `dict` a Discrete shows the first bit, a
    vector or picture the second. With `memory` the first bit is only shown in the first of three steps, and the last action
    counts. With `mask` every choice is there twice, and which of the two is legal at this step only the mask tells; an
    illegal one costs 1. `action` is discrete (one of 4), several (one of 2, one of 3), bits, or continuous (in [-1, 1],
    the signs halved: 1 less twice the squared distance). Whoever ignores one part earns 1/2 at best.
    """

    dict: bool = static(False)
    image: bool = static(False)
    mask: bool = static(False)
    memory: bool = static(False)
    action: str = static("discrete")

    def __check_init__(self) -> None:
        require(self.action in _CHOICES, f"Medley: action is {', '.join(_CHOICES)}, not {self.action!r}")
        require(not (self.mask and self.action == "continuous"), "Medley: no mask forbids continuous actions")

    @property
    def spec(self) -> Spec:
        view, n = Box((4, 4, 1), 0.0, 255.0, "uint8") if self.image else Box((2,), -1.0, 1.0), 1 + self.mask
        kinds = {"discrete": Discrete(4 * n), "several": MultiDiscrete((2 * n, 3 * n)), "bits": MultiBinary(2 * n)}
        action = kinds.get(self.action, Box((2,), -1.0, 1.0))
        return Spec(
            Dict.of({"first": Discrete(3), "view": view}) if self.dict else view, action, self.mask, self._length
        )

    @property
    def _length(self) -> int:
        return 3 if self.memory else 1

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        signs, legal, extras = self._draw(key)
        return (signs, legal, jnp.zeros((), jnp.int32)), restart(self._show(signs), extras)

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        signs, legal, t = state[0], state[1], state[2] + 1
        over = t >= self._length
        reward = jnp.where(over, self._worth(signs, action), 0.0)
        if self.mask:
            reward = jnp.where(jnp.any(self._chosen(action, 2) & ~legal), -1.0, reward)
        fresh, legal, extras = self._draw(key)
        signs = jnp.stack([signs[0], fresh[1]])
        return (signs, legal, t), transition(self._show(signs.at[0].set(0.0)), reward, terminated=over, extras=extras)

    def _draw(self, key: Key[Array, ""]) -> PyTree:
        """Signs, the mask, and the step's extras."""
        coin = jax.random.bernoulli(jax.random.fold_in(key, 1), shape=(sum(_CHOICES[self.action]),))
        legal = jnp.stack([coin, ~coin], -1).ravel()
        return jax.random.rademacher(key, (2,), jnp.float32), legal, {"legal": legal} if self.mask else {}

    def _show(self, signs: Float[Array, "2"]) -> PyTree:
        view = jnp.stack([signs[1], signs[1]]) if self.dict else signs
        if self.image:
            view = jnp.broadcast_to(jnp.repeat(127.5 * (view + 1.0), 2)[:, None], (4, 4, 1)).astype(jnp.uint8)
        return {"first": (signs[0] + 1.0).astype(jnp.int32), "view": view} if self.dict else view

    def _worth(self, signs: Float[Array, "2"], action: Array) -> Float[Array, ""]:
        if self.action == "continuous":
            return 1.0 - 2.0 * jnp.sum((action - signs / 2) ** 2)
        first, second = (signs > 0).astype(jnp.int32)
        right = 2 * first + second if self.action == "discrete" else jnp.stack([first, second])
        said = self._chosen(action, 1 + self.mask).reshape(-1, 1 + self.mask).any(-1)
        return jnp.all(said == self._chosen(right, 1)).astype(jnp.float32)

    def _chosen(self, action: Array, copies: int) -> Bool[Array, " n"]:
        """Every choice there is, each so many times, True where it was made."""
        if self.action == "bits":
            return action > 0
        made = zip(_CHOICES[self.action], jnp.atleast_1d(action), strict=True)
        return jnp.concatenate([jnp.arange(n * copies) == a for n, a in made])


def _sign(key: Key[Array, ""]) -> Float[Array, "1"]:
    return jax.random.rademacher(key, (1,), jnp.float32)
