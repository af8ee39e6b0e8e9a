"""One test run: JAX on the CPU, strict about types and ranks; every signature of the library checked, unless `YOZH_UNCHECKED` is set.

Checking costs three quarters of the time that a test which trains takes, nearly all of it for tracing. `make test` checks in its
first part, in which every agent is trained once too, and not in its second, the slow tests.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from pathlib import Path

import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook

if not os.environ.get("YOZH_UNCHECKED"):
    install_import_hook("yozh", "beartype.beartype")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
if jax.config.jax_compilation_cache_dir is None:  # the workers of one run share programs
    jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


TRAINING = {f"test_{name}" for name in (
    "actor_q", "adapters", "atari", "checkpoint", "contract", "diagnostics", "discounts", "dqn_parts", "ensemble", "episodes", "es",
    "export", "hca", "mirror", "noisy", "ppo", "pqn", "qprop", "recurrent_dqn", "seeds", "support", "training", "trust", "tune",
)}  # fmt: skip
"""Files of tests that train, most of them slow together if not each."""
CHECKED = "test_snapshot"
"""Of these the one that is always run with signatures checked: it trains every agent once."""
OFTEN = {"a2c", "dqn", "ppo", "pqn"}
"""Agents that everything is tried with in every run of the suite."""
SELDOM = {"test_no_dead_structure", "test_jit_equals_no_jit", "test_resumed_equals_uninterrupted_bit_for_bit", "test_pairs",
          "test_poison_is_named_and_what_was_learnt_is_kept", "test_all_at_once_is_learnt"}  # fmt: skip
"""Tests, each a few seconds for every agent, that are left to `make thorough` for the other agents."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in TRAINING and item.originalname != CHECKED:
            item.add_marker(pytest.mark.slow)
        name = getattr(item, "callspec", None) and item.callspec.params.get("name")
        if item.originalname in SELDOM and name not in OFTEN:
            item.add_marker(pytest.mark.thorough)


@pytest.fixture
def lenient():
    """For code that is not ours: JAX's usual promotion rules."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(autouse=True)
def room():
    """Programs are let go before there are too many, and before they take gigabytes."""
    yield
    from yozh.runners.compiler import make_room

    make_room(20_000)


@pytest.fixture(autouse=True)
def same_numbers(request):
    """A module's `RNG` starts anew for each test, so that none depends on those before it."""
    if hasattr(request.module, "RNG"):
        request.module.RNG = np.random.default_rng(0)
