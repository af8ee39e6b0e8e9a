"""What a run is replaying at a moment: how old it is, and how it is weighted."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from yozh.agents.sampling import Sampling
from yozh.core import Agent, AnyArray, Drawn, Store
from yozh.runners.fused import Run
from yozh.runners.hosted import Hosted

DRAWS = 4096
"""Windows drawn for the figures, about."""
BARS = 30


def replayed(agent: Agent, runner: Any, run: Run) -> dict[str, dict[str, Any]] | None:
    """Of `age` (environment steps since the first transition of a drawn window; its mean is the effective horizon of the replay), and where
    windows have priorities of `priority` (of stored windows that can be drawn) and `weight` (in the loss): `mean`, quantiles
    `p5`, `p50` and `p95`, and a histogram, `counts` between `edges`. `None` where nothing is replayed, or not yet.

    The draws are extra ones, from a key of their own: what is learnt does not depend on them.
    """
    store, key = agent.experience.store, jax.random.fold_in(jax.random.key(0), int(run.state.counts.updates))
    batch = getattr(store, "batch", DRAWS)
    n = batch * max(DRAWS // batch, 1)
    if isinstance(runner, Hosted) and runner.memory is not None:
        drawn = runner.memory.replay.draws(key, n) if runner.memory.replay.ready() else None
    elif not jax.tree.leaves(run.store) or not store.ready(run.store):
        drawn = None
    else:
        drawn = _draws(store, run.store, key, n)
    if drawn is None:
        return None
    drawn = _weighed(agent, run.state, drawn, batch, key)
    found = {"age": _figures(drawn.age)}
    if drawn.priority is not None:
        found["priority"] = _figures(drawn.priority[drawn.priority > 0], logarithmic=True)
    if drawn.weight is not None:
        found["weight"] = _figures(drawn.weight)
    return {name: figures for name, figures in found.items() if figures is not None}


@eqx.filter_jit
def _draws(store: Store, content: PyTree, key: Key[Array, ""], n: int) -> Drawn | None:
    return store.draws(content, key, n)


@eqx.filter_jit
def _weighed(agent: Agent, state: PyTree, drawn: Drawn, batch: int, key: Key[Array, ""]) -> Drawn:
    """With the weights that the loss takes, in batches as they are drawn for learning."""
    sampling = getattr(agent, "replay", None)
    if drawn.weight is None or not isinstance(sampling, Sampling):
        return drawn
    shuffled = jax.random.permutation(jax.random.fold_in(key, 1), jnp.asarray(drawn.weight)).reshape(-1, batch)
    weight = jax.vmap(lambda w: sampling.weights(w, state.counts))(shuffled).ravel()
    return eqx.tree_at(lambda d: d.weight, drawn, weight)


def _figures(x: AnyArray, logarithmic: bool = False) -> dict[str, Any] | None:
    """Of what is finite, if there is any."""
    numbers = np.asarray(x, float)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return None
    counts, edges = np.histogram(np.log10(numbers) if logarithmic else numbers, BARS)
    quantiles = {f"p{q}": float(np.percentile(numbers, q)) for q in (5, 50, 95)}
    edges = 10**edges if logarithmic else edges
    return {"mean": float(numbers.mean()), **quantiles, "counts": counts.tolist(), "edges": edges.tolist()}
