"""How programs are compiled for the machine at hand."""

import math
from typing import Any

import jax

LARGE = 8e6
"""Floating-point operations of one matrix product from which two CPU threads are quicker than one."""


def options(jaxpr: Any) -> dict[str, Any]:
    """Compiler options for a traced program.

    On a CPU, XLA hands every product to a pool of threads; where products are small, waking a thread takes longer than
    the product. Such a program is quicker on one core, and leaves the others to other work.
    """
    if jax.default_backend() != "cpu" or largest_product(jaxpr) >= LARGE:
        return {}
    return {"xla_cpu_multi_thread_eigen": False}


def largest_product(jaxpr: Any) -> float:
    """Floating-point operations of the largest matrix product or convolution in the program and its parts."""
    most = 0.0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            most = max(most, 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted))
        elif name == "conv_general_dilated":
            kernel, outputs = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec[0]
            most = max(most, 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) / kernel[outputs])
        for inner in _inner(eqn.params):
            most = max(most, largest_product(inner))
    return most


def _inner(params: dict[str, Any]) -> list[Any]:
    found = []
    for value in params.values():
        for x in value if isinstance(value, tuple | list) else (value,):
            x = getattr(x, "jaxpr", x)
            if hasattr(x, "eqns"):
                found.append(x)
    return found
