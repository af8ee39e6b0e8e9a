"""Which action is carried out while training, where the best one is known by its value."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def greedy(q: Float[Array, "B actions"]) -> Int[Array, " B"]:
    return jnp.argmax(q, -1).astype(jnp.int32)


def epsilon_greedy(q: Float[Array, "B actions"], epsilon: Float[Array, ""], key: Key[Array, ""]) -> Int[Array, " B"]:
    """The best action or, with chance epsilon, any that is legal: whose value is not the lowest number there is."""
    # One draw decides both: below epsilon, its position within [0, epsilon) is the rank of the random action.
    rank = jax.random.uniform(key, q.shape[:-1]) / jnp.maximum(epsilon, 1e-8)
    allowed = q > jnp.finfo(q.dtype).min
    nth = jnp.floor(rank * allowed.sum(-1).astype(jnp.float32)).astype(jnp.int32) + 1
    random = jnp.argmax(jnp.cumsum(allowed, axis=-1) >= nth[:, None], -1).astype(jnp.int32)
    return jnp.where(rank < 1.0, random, greedy(q))
