"""One choice, noise, and only then what it was worth (Harutyunyan et al. 2019, figure 2, centre)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from yozh.core import Env, Spec, TimeStep, leaf, require, restart, static, transition
from yozh.spaces import Box, Discrete


class Chain(NamedTuple):
    place: Int[Array, ""]
    sign: Float[Array, ""]
    """+1 or -1 by the first action; 0 before it."""


class DelayedEffect(Env):
    """The first action decides on ±1, paid on leaving the last of `length` + 2 places; on leaving each of the `length` places in
    between N(0, sigma²) is paid. Other actions do nothing. Observation: the place as one of `length` + 2, and at the last place the
    sign. The best mean return is 1.
    """

    sigma: Float[Array, ""] = leaf(1.0)
    """Standard deviation of what is paid in between."""
    length: int = static(3)

    def __check_init__(self) -> None:
        require(self.length > 0, f"DelayedEffect: length must be positive, not {self.length}")

    @property
    def spec(self) -> Spec:
        return Spec(Box((self.length + 3,), -1.0, 1.0), Discrete(2))

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        state = Chain(jnp.zeros((), jnp.int32), jnp.zeros(()))
        return state, restart(self._observe(state))

    def step(self, state: Chain, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        noise = jnp.where(state.place > 0, self.sigma * jax.random.normal(key), 0.0)
        over = state.place == self.length + 1
        sign = jnp.where(state.place == 0, 2.0 * action.astype(jnp.float32) - 1.0, state.sign)
        after = Chain(state.place + 1, sign)
        return after, transition(self._observe(after), jnp.where(over, state.sign, noise), terminated=over)

    def _observe(self, state: Chain) -> Float[Array, " places"]:
        place = (jnp.arange(self.length + 2) == state.place).astype(jnp.float32)
        return jnp.append(place, jnp.where(state.place == self.length + 1, state.sign, 0.0))
