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
from jaxtyping import config, install_import_hook

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
OFTEN, MOST_OFTEN = ("a2c", "dqn", "ppo", "pqn"), ("dqn", "ppo")
"""Agents that everything is tried with in every run of the suite, and those that what takes long is."""
SELDOM = {
    **dict.fromkeys(("test_jit_equals_no_jit", "test_resumed_equals_uninterrupted_bit_for_bit",
                     "test_poison_is_named_and_what_was_learnt_is_kept", "test_probe_memory", "test_probe_action_spaces"), OFTEN),
    **dict.fromkeys(("test_no_dead_structure", "test_pairs", "test_alone",
                     "test_entries_of_a_dict_may_depend_on_each_other"), MOST_OFTEN),
    "test_all_at_once_is_learnt": ("dqn",),
    **dict.fromkeys(("test_no_dead_structure_in_any_part", "test_no_dead_number_in_any_part", "test_no_number_is_dead",
                     "test_parts_combine_with_memory_and_no_number_is_dead", "test_all_parts_remember",
                     "test_heads_find_the_bottom_of_the_sea_and_random_actions_do_not"), ()),
}  # fmt: skip
"""Tests of seconds or minutes, and the agents with which they are not left to `make thorough`."""
PROBES = {"test_probe_values": "Later", "test_probe_policies": "Matched"}
"""Of these, other agents meet the hardest alone."""
STUDIES = {"n_step_u", "iid", "recall"}
"""Which take a minute or more."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in TRAINING and item.originalname != CHECKED:
            item.add_marker(pytest.mark.slow)
        known = item.callspec.params if hasattr(item, "callspec") else {}
        name, test = known.get("name"), item.originalname
        seldom = test in SELDOM and name not in SELDOM[test]
        easy = test in PROBES and name not in OFTEN and known["probe"] != PROBES[test]
        if seldom or easy or (test == "test_its_numbers_hold" and name in STUDIES):
            item.add_marker(pytest.mark.thorough)


@pytest.fixture
def lenient():
    """For code that is not ours: JAX's usual promotion rules."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def unchecked():
    """Signatures would refuse first what a test expects the library to refuse; and a batch of any size is no `int` to them."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


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
