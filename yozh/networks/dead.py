"""Units that have stopped to answer."""

from typing import Any

import jax
import jax.extend.core as jex
import numpy as np
from jaxtyping import PyTree

from yozh.networks.network import Network


def dead_units(net: Network, observations: PyTree) -> float | None:
    """Share of the network's ReLU units that are zero on a whole batch of observations `[B, ...]`, normalised if they must be
    (of a channel: at every place); `None` where it has none, or has them only inside a core or another function of JAX."""
    traced = jax.make_jaxpr(jax.vmap(net.embed))(observations)
    units = [v for eqn in traced.jaxpr.eqns if _is_relu(eqn) for v in eqn.outvars]
    if not units:
        return None
    layers = jex.jaxpr_as_fun(jex.ClosedJaxpr(traced.jaxpr.replace(outvars=units), traced.consts))
    values = layers(*jax.tree.leaves(observations))
    dead = [~(np.asarray(x) > 0).any(axis=tuple(range(x.ndim - 1))) for x in values]
    return float(np.concatenate(dead).mean())


def _is_relu(eqn: Any) -> bool:
    """`jax.nn.relu` has a derivative of its own, around a jitted function of its name."""
    inner = eqn.params.get("call_jaxpr")
    return inner is not None and any(e.params.get("name") == "relu" for e in inner.eqns)
