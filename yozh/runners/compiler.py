"""How programs are compiled: one set of options for all of them, so that the same arithmetic gives the same bits."""

OPTIONS = {"xla_cpu_prefer_vector_width": 512}
"""On a CPU, the widest vectors it has; XLA's own choice is half of that where there are 512 bits."""
