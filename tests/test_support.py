"""What combines with what, tried out on `Medley`; `tests/support.py` has the table and the checks."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import yozh
from tests import support
from tests.conftest import OFTEN
from tests.contract import SMALL, train
from tests.support import ACTIONS, FEATURES, PAGE, SWITCHES, Features, label
from yozh import spaces
from yozh.agents import PPO
from yozh.app.options import override
from yozh.core import Spec, YozhError
from yozh.environments import make, probes
from yozh.environments.batched import Vectorised
from yozh.environments.probes import Medley
from yozh.runners import evaluation, training

every = pytest.mark.parametrize("name", SMALL)


def cases(features: Callable[[str], list[Features]]) -> Any:
    every = [pytest.param(name, f, id=f"{name}-{label(f)}") for name in SMALL for f in features(name)]
    return pytest.mark.parametrize(("name", "features"), every)


@cases(lambda name: support.alone(name) if name in OFTEN else [])
def test_alone(name: str, features: Features):
    support.check(name, features)


@pytest.mark.slow
@cases(lambda name: support.groups(name) if name in OFTEN else support.cover(name))
def test_pairs(name: str, features: Features):
    support.check(name, features)


@pytest.mark.slow
@every
def test_all_at_once_is_learnt(name: str):
    support.learnt_all(name)


@every
def test_every_pair_is_tried(name: str):
    groups = support.groups(name)
    assert all(map(support.possible, groups))
    assert set(support.pairs(name)) == {frozenset(p) for g in groups for p in itertools.combinations(g, 2)}


def test_the_page_says_what_the_table_does():
    assert PAGE.read_text() == support.page(), "write it anew: python -m tests.support"


def test_the_page_tells_of_failures():
    def fails(*features: str) -> int:
        return support.page([("ppo", frozenset(features))]).count("fails")

    assert (support.page().count("fails"), fails("dict"), fails("dict", "mask", "hosted")) == (0, 1, 3)
    assert support.page(unlearnt=["ppo"]).count("fails") == 1


REFUSED = [pytest.param(n, f, id=f"{n}-{f}") for n in SMALL for f in FEATURES if f not in support.claimed(n)]
SETTINGS = {"memory": "core", "normalised": "normalise-observations"}
"""What such an agent has no field for."""


@pytest.mark.parametrize(("name", "feature"), REFUSED)
def test_what_an_agent_lacks_is_refused_before_anything_compiles(
    name: str, feature: str, monkeypatch: pytest.MonkeyPatch
):
    if feature in SETTINGS:
        with pytest.raises(YozhError, match=f"has no option --agent.{SETTINGS[feature]}"):
            override(SMALL[name].agent, {SETTINGS[feature]: "none"})
        return
    monkeypatch.setattr(training, "Fused", None)  # nothing is run, and so nothing compiled
    env = Medley(action=feature) if feature in ACTIONS else Medley(**{feature: True})
    with pytest.raises(YozhError, match=f"{name} takes .*, not "):
        yozh.train(SMALL[name].agent, env, steps=100)


@every
def test_named_actions_are_refused(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "Fused", None)
    with pytest.raises(YozhError, match=r"takes .*, not Dict\(bits: MultiBinary\(3\), several: MultiDiscrete"):
        yozh.train(SMALL[name].agent, probes.Mixed(), steps=100)


def test_medley_refuses_what_has_no_meaning():
    with pytest.raises(YozhError, match="no mask forbids continuous actions"):
        Medley(mask=True, action="continuous")
    with pytest.raises(YozhError, match="action is discrete, several, bits, continuous, not 'text'"):
        Medley(action="text")


VARIANTS = [
    Medley(action=action, **dict(zip(("dict", "image", "mask", "memory"), on, strict=True)))
    for action in ACTIONS
    for on in itertools.product((False, True), repeat=4)
    if not (action == "continuous" and on[2])
]


def last_choice(env: Medley, n: int = 4000) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What is to be seen before the last choice of an episode, by part `[n, ...]`, and what each action earns `[n, actions]`."""
    actions = all_actions(env.spec.action)

    def parts(obs: Any) -> dict[str, Any]:
        return obs if env.dict else {"view": obs}

    @jax.jit
    @jax.vmap
    def episode(key: jax.Array) -> Any:
        keys = jax.random.split(key, 4)
        state, step = env.reset(keys[0])
        seen = {f"was {name}": x for name, x in parts(step.obs).items()} if env.memory else {}
        for k in keys[1:3] if env.memory else ():
            state, step = env.step(state, actions[0], k)
        earned = jax.vmap(lambda action: env.step(state, action, keys[3])[1].reward)(actions)
        return seen | parts(step.obs) | step.extras, earned

    return jax.tree.map(np.asarray, episode(jax.random.split(jax.random.key(0), n)))


def all_actions(space: spaces.Space) -> jax.Array:
    match space:
        case spaces.Discrete(n):
            return jnp.arange(n)
        case spaces.MultiDiscrete(ns):
            return jnp.array([*itertools.product(*map(range, ns))], jnp.int32)
        case spaces.MultiBinary(n):
            return jnp.array([*itertools.product((0, 1), repeat=n)], jnp.int8)
        case _:
            return jnp.array([*itertools.product((-0.5, 0.0, 0.5), repeat=2)])


def best(seen: dict[str, np.ndarray], earned: np.ndarray) -> float:
    """Mean return of the best of all functions from what is seen to an action."""
    n = len(earned)
    rows = np.concatenate([np.zeros((n, 1)), *(x.reshape(n, -1) for x in seen.values())], 1)
    _, group = np.unique(rows, axis=0, return_inverse=True)
    return sum(earned[group.ravel() == g].sum(0).max() for g in range(group.max() + 1)) / n


@pytest.mark.parametrize("env", VARIANTS, ids=lambda e: "+".join([e.action, *(s for s in SWITCHES if getattr(e, s))]))
def test_medley_needs_every_part(env: Medley):
    """The best policy of those that see everything earns 1; of those that are blind to a part, 1/2 (a little more on the
    sample that it is the best on)."""
    with support.unoptimised():
        seen, earned = last_choice(env)
    assert best(seen, earned) == 1.0
    for part in [*(("first", "view") if env.dict else ("view",)), *(("legal",) if env.mask else ())]:
        assert best({k: x for k, x in seen.items() if k.removeprefix("was ") != part}, earned) <= 0.6, part
    if env.memory:
        assert best({k: x for k, x in seen.items() if not k.startswith("was ")}, earned) <= 0.6


def test_an_illegal_action_of_medley_costs_at_every_step():
    env = Medley(mask=True, memory=True)
    state, step = env.reset(jax.random.key(0))
    for t in range(3):
        wrong = jnp.argmin(step.extras["legal"])
        state, step = env.step(state, wrong, jax.random.key(t))
        assert float(step.reward) == -1 and bool(step.last) == (t == 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OFTEN))
def test_entries_of_a_dict_may_depend_on_each_other(name: str):
    """Whoever adds up what the entries say is right three times in four at best."""
    slowly = {
        "learning_rate": "0.001",
        "entropy_coefficient": "0.05",
    }  # else a policy settles before the entries have met
    explores = hasattr(SMALL[name].probe, "entropy_coefficient")
    agent, env = override(SMALL[name].probe, slowly if explores else {}), probes.Pictured()
    run, _ = train(agent, env, 1000)
    judged = evaluation.evaluate(agent, agent.policy(run.state), Vectorised(env, 20), episodes=200, seed=1)
    assert judged["mean_return"] >= 0.9


def test_masks_of_real_numbers_are_refused():
    spec = Spec(spaces.Box((1,)), spaces.Box((2,), -1.0, 1.0), legal=True)
    with pytest.raises(YozhError, match="a mask forbids choices"):
        jax.eval_shape(lambda: PPO().init(jax.random.key(0), spec))


def test_masks_of_envpool_for_several_choices():
    env = make("Jumanji/LevelBasedForaging-v0", 2, backend="envpool")
    state, step = env.reset(jax.random.key(0))
    params = SMALL["a2c"].agent.policy(SMALL["a2c"].agent.init(jax.random.key(0), env.spec))
    memory, forbidden = SMALL["a2c"].agent.initial_memory(params, 2), 0
    for t in range(20):
        legal = np.asarray(step.extras["legal"]).reshape(2, *env.spec.action.shape, -1)
        forbidden += int((~legal).sum())
        action, _, memory = SMALL["a2c"].agent.act(params, memory, step, jax.random.key(t))
        assert np.take_along_axis(legal, np.asarray(action)[..., None], -1).all()
        state, step = env.step(state, action)
    assert forbidden > 0
    with pytest.raises(YozhError, match=r"its mask .40, 20. is of combinations of MultiDiscrete"):
        assert make("Jumanji/BinPack-v2", 2, backend="envpool").spec
