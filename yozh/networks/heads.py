"""Heads: from features to a distribution over actions, a value, or the values of all actions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from yozh import spaces
from yozh.core import YozhError
from yozh.distributions import Bernoulli, Categorical, Distribution, Factored, Normal, TanhNormal, masked
from yozh.networks.layers import Linear, linear


class PolicyHead(eqx.Module):
    """A distribution over the actions of a space. A Gaussian's log standard deviation does not depend on the state."""

    layer: Linear
    log_std: Float[Array, "..."] | None
    space: spaces.Leaf = eqx.field(static=True)
    squash: bool = eqx.field(static=True)

    def __init__(
        self, space: spaces.Space, features: int, key: Key[Array, ""], *, init: str, squash: bool, log_std: float
    ):
        match space:
            case spaces.Discrete(n) | spaces.MultiBinary(n):
                outputs = n
            case spaces.MultiDiscrete(ns):
                outputs = sum(ns)
            case spaces.Box(shape) if len(shape) == 1 and np.issubdtype(space.dtype, np.floating):
                outputs = shape[0]
            case _:
                takes = "Discrete, MultiDiscrete, MultiBinary or one-dimensional float Box actions"
                raise YozhError(f"a policy takes {takes}, not {spaces.describe(space)}")
        continuous = isinstance(space, spaces.Box)
        if squash and not continuous:
            raise YozhError(f"only continuous actions are squashed, not {spaces.describe(space)}; use squash=False")
        if continuous and squash and not space.bounded:
            raise YozhError(
                f"a squashed policy needs finite bounds, and {spaces.describe(space)} has none; use squash=False"
            )
        self.layer = linear(features, outputs, key, init=init, gain=0.01)
        self.log_std = jnp.full(outputs, log_std) if continuous else None
        self.space, self.squash = space, squash

    def __call__(self, x: Float[Array, " features"], legal: Bool[Array, " n"] | None = None) -> Distribution:
        out = self.layer(x)
        if legal is not None:
            out = masked(out, legal)
        match self.space:
            case spaces.Discrete():
                return Categorical(out)
            case spaces.MultiDiscrete(ns):
                return Factored(out, ns)
            case spaces.MultiBinary():
                return Bernoulli(out)
            case spaces.Box():
                if self.squash:
                    return TanhNormal(out, self.log_std, self.space.low, self.space.high)
                return Normal(out, self.log_std)


class QHead(eqx.Module):
    """The values of all actions, or some numbers for each; dueling: `Q(s, a) = V(s) + A(s, a) - mean_b A(s, b)` (Wang et al.
    2016, eq. 9), number by number."""

    advantage: Linear
    value: Linear | None
    outputs: int | None = eqx.field(static=True)

    def __init__(self, actions: int, features: int, key: Key[Array, ""], *, init: str, dueling: bool, outputs: int | None = None):  # fmt: skip
        """`outputs`: numbers for each action."""
        a, v = jax.random.split(key)
        self.advantage = linear(features, actions * (outputs or 1), a, init=init, gain=1.0)
        self.value = linear(features, outputs or 1, v, init=init, gain=1.0) if dueling else None
        self.outputs = outputs

    def __call__(self, x: Float[Array, " features"]) -> Float[Array, "actions *outputs"]:
        shape = (-1,) if self.outputs is None else (-1, self.outputs)
        advantage = self.advantage(x).reshape(shape)
        if self.value is None:
            return advantage
        return self.value(x).reshape(shape) + advantage - advantage.mean(0, keepdims=True)
