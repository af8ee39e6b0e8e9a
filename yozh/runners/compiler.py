"""How programs are compiled: one set of options for all of them, so that the same arithmetic gives the same bits."""

from pathlib import Path

import jax

OPTIONS = {"xla_cpu_prefer_vector_width": 512}
"""On a CPU, the widest vectors it has; XLA's own choice is half of that where there are 512 bits."""


def make_room(limit: int = 40_000) -> None:
    """Lets go of the programs that JAX keeps, if this process has more than `limit` memory maps.

    On a CPU a training run's programs take a thousand or two, and Linux ends a process at 65,530. What is called again is
    compiled again.
    """
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > limit:
        jax.clear_caches()
