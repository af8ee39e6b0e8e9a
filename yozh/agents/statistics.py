"""Running mean and variance of what an agent sees, kept in its state and carried by its policy."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from yozh import spaces


class Running(eqx.Module):
    """Mean and variance of everything seen so far (Chan et al. 1979, parallel form)."""

    count: Float[Array, ""]
    mean: Float[Array, "..."]
    variance: Float[Array, "..."]

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> "Running":
        """Nothing seen: mean 0, variance 1, which normalises nothing."""
        return cls(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape))

    def update(self, x: Float[Array, "..."], seen: Bool[Array, "..."] | None = None) -> "Running":
        """`x` has any number of leading axes before the statistic's shape; of them `seen`, if given, says which count."""
        x = x.reshape(-1, *self.mean.shape)
        if seen is None:
            n, mean, variance = float(x.shape[0]), x.mean(0), x.var(0)
        else:
            counts = seen.reshape(-1, *(1,) * self.mean.ndim)
            n, mean, variance = jnp.sum(seen, dtype=jnp.float32), x.mean(0, where=counts), x.var(0, where=counts)
        total = self.count + n
        delta = mean - self.mean
        m2 = self.variance * self.count + variance * n + delta**2 * (self.count * n / total)
        return Running(total, self.mean + delta * (n / total), m2 / total)

    def normalise(self, x: Float[Array, "..."], clip: float = 10.0) -> Float[Array, "..."]:
        """`(x - mean) / std`, clipped to ±clip."""
        lead = (None,) * (x.ndim - self.mean.ndim)
        return jnp.clip((x - self.mean[lead]) * jax.lax.rsqrt(self.variance[lead] + 1e-8), -clip, clip)


def observation_statistics(space: spaces.Space) -> PyTree:
    """One `Running` for each float leaf of an observation, `None` for integers, which are not normalised."""
    return spaces.map_leaves(lambda s: Running.of(s.shape) if s.dtype == "float32" else None, space)


def update(statistics: PyTree, obs: PyTree, seen: Bool[Array, "..."] | None = None) -> PyTree:
    """`seen`, if given: which of the observations count."""
    return _zip(lambda s, x: s.update(x, seen), lambda s, x: None, statistics, obs)


def normalise(statistics: PyTree, obs: PyTree) -> PyTree:
    """The observation, `*b ...`, with its float leaves normalised; unchanged where `statistics` is `None`."""
    if statistics is None:
        return obs
    return _zip(lambda s, x: s.normalise(x), lambda s, x: x, statistics, obs)


def _zip(some, none, statistics: PyTree, obs: PyTree) -> PyTree:
    def apply(s: Running | None, x: Array) -> PyTree:
        return none(s, x) if s is None else some(s, x)

    return jax.tree.map(apply, statistics, obs, is_leaf=lambda s: s is None or isinstance(s, Running))
