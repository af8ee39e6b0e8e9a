"""Recurrent cores: they carry what an agent remembers from step to step of an episode."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from yozh.core import static


class CoreBlueprint(eqx.Module):
    """How to build a core for features of a given size."""

    size: int = static(64)
    """Units, and length of the core's output."""

    @abc.abstractmethod
    def build(self, inputs: int, key: Key[Array, ""]) -> Callable[[Array, PyTree], tuple[Array, PyTree]]: ...


class GRU(CoreBlueprint):
    """Gated recurrent unit (Cho et al. 2014)."""

    def build(self, inputs: int, key: Key[Array, ""]) -> "_GRU":
        return _GRU(_orthogonal(eqx.nn.GRUCell(inputs, self.size, key=key), key))


class LSTM(CoreBlueprint):
    """Long short-term memory (Hochreiter and Schmidhuber 1997)."""

    def build(self, inputs: int, key: Key[Array, ""]) -> "_LSTM":
        return _LSTM(_orthogonal(eqx.nn.LSTMCell(inputs, self.size, key=key), key))


class _GRU(eqx.Module):
    cell: eqx.nn.GRUCell

    def initial_memory(self) -> Float[Array, " size"]:
        return jnp.zeros(self.cell.hidden_size)

    def __call__(self, x: Float[Array, " inputs"], memory: Float[Array, " size"]) -> tuple[Array, Array]:
        memory = self.cell(x, memory)
        return memory, memory


class _LSTM(eqx.Module):
    cell: eqx.nn.LSTMCell

    def initial_memory(self) -> tuple[Array, Array]:
        return jnp.zeros(self.cell.hidden_size), jnp.zeros(self.cell.hidden_size)

    def __call__(self, x: Float[Array, " inputs"], memory: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        hidden, cell = self.cell(x, memory)
        return hidden, (hidden, cell)


def _orthogonal(cell: Any, key: Key[Array, ""]) -> Any:
    """Weights orthogonal of gain 1, biases zero (Huang et al. 2022, LSTM details 1)."""
    init = jax.nn.initializers.orthogonal(1.0)
    leaves, tree = jax.tree.flatten(cell)
    keys = jax.random.split(key, len(leaves))
    leaves = [
        init(k, x.shape, x.dtype) if x.ndim == 2 else jnp.zeros_like(x) for k, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, leaves)
