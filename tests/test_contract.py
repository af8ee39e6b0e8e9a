"""The contract that every agent keeps; `contract.SMALL` lists them."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract import SMALL, STEPS, TRAINED, UNUSED, batched, cartpole, learnt, limit, playable, train, vary
from yozh import agents, networks
from yozh.agents.schedules import over
from yozh.core import Agent, Env, TimeStep, YozhError
from yozh.environments import probes
from yozh.environments.batched import Vectorised
from yozh.environments.classic import Pendulum
from yozh.networks import GRU
from yozh.runners import evaluation, fused
from yozh.runners.rollout import rollout

SNAPSHOTS = Path(__file__).parent / "snapshots.json"
SHORT = 10
"""Turns where two ways of computing are compared: rounding grows from turn to turn."""


def turns(agent: Agent) -> int:
    """Of a whole run of `STEPS`."""
    return STEPS // (agent.experience.streams * agent.experience.unroll)


COMPARED = {"test_same_seed_same_bits", "test_no_dead_number", "test_no_dead_structure", "test_room_changes_nothing",
            "test_seeds_and_numbers_vmapped_equal_a_loop", "test_jit_equals_no_jit"}  # fmt: skip


@pytest.fixture(autouse=True)
def compiled_quickly(request: pytest.FixtureRequest):
    """Programs that run for a moment, only to be compared, are compiled in half the time."""
    jax.config.update("jax_disable_most_optimizations", request.node.originalname in COMPARED)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


every = pytest.mark.parametrize("name", SMALL)
trained = pytest.mark.parametrize("name", TRAINED)
valued = pytest.mark.parametrize("name", [n for n, small in SMALL.items() if small.values])


@pytest.mark.parametrize("name", [n for n in agents.names() if n not in SMALL])
def test_what_is_not_listed_is_a_listed_agent_with_other_defaults(name: str):
    """And perhaps another optimiser."""
    kind = agents.names()[name]
    assert any(type(small.agent) is kind.__mro__[1] for small in SMALL.values())
    own = {k for k, v in vars(kind).items() if callable(v) or isinstance(v, property)}
    fields = {f.name for f in dataclasses.fields(kind)}
    assert {k for k in own if not k.startswith("__")} - fields <= {"optimiser"}


@trained
def test_same_seed_same_bits(name: str):
    agent = TRAINED[name]
    one, two, other = (learnt(train(agent, cartpole(agent), turns(agent), seed)[0]) for seed in (0, 0, 1))
    assert (one == two).all()
    assert not np.allclose(one, other)


@trained
def test_snapshot(name: str):
    """A change of these figures is a change of the algorithm: say why in the commit, and write them anew with
    `python -m tests.snapshots`."""
    weights = learnt(train(TRAINED[name], cartpole(TRAINED[name]), SHORT)[0])
    expected = json.loads(SNAPSHOTS.read_text())[name]
    np.testing.assert_allclose(signature(weights), expected, rtol=2e-3)


def signature(weights: np.ndarray) -> list[float]:
    """Not bits, which differ between processors, but sums that any change of the algorithm moves."""
    wave = np.cos(np.arange(len(weights)))
    return [float(np.abs(weights).sum()), float(np.square(weights).sum()), float(np.abs(weights * wave).sum())]


@trained
def test_no_dead_number(name: str):
    """Every numeric hyper-parameter changes what is learnt."""
    agent = over(TRAINED[name], STEPS)
    env = batched(agent, cartpole(agent))
    paths = [p for p, _ in jax.tree_util.tree_leaves_with_path(agent)]

    def changed(x: jax.Array) -> jax.Array:
        return x + 1 if jnp.issubdtype(x.dtype, jnp.integer) else x * 0.7 + 0.01

    variants = [agent] + [vary(agent, p, changed) for p in paths]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *variants)

    @jax.jit
    @jax.vmap
    def run(agent: Agent) -> jax.Array:
        start = fused.init(agent, env, jax.random.key(0))
        done, _ = fused.advance(agent, env, start, jnp.int32(turns(TRAINED[name])))
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(done.state.net)])

    weights = np.asarray(run(stacked))
    dead = [
        jax.tree_util.keystr(p) for p, w in zip(paths, weights[1:], strict=True) if np.abs(w - weights[0]).max() < 1e-7
    ]
    assert dead == UNUSED.get(name, []), f"{name}: these change nothing: {dead}"


@every
def test_every_structural_parameter_is_listed(name: str):
    small = SMALL[name]
    fields = dataclasses.fields(small.agent)
    structural = {
        f.name for f in fields if f.metadata.get("static") or not jax.tree.leaves(getattr(small.agent, f.name))
    }
    assert structural <= {*small.structural, *small.room, *small.refused} <= {f.name for f in fields}


@pytest.mark.parametrize(("name", "field"), [(n, f) for n, small in SMALL.items() for f in small.refused])
def test_what_a_field_cannot_be_is_refused(name: str, field: str):
    with pytest.raises(YozhError, match=f"{name}: .*{field}"):
        dataclasses.replace(SMALL[name].agent, **{field: SMALL[name].refused[field]})


@trained
def test_what_is_not_of_a_fields_type_is_refused(name: str, unchecked: None):
    agent = TRAINED[name]
    for field in dataclasses.fields(agent):
        if "converter" not in field.metadata:
            with pytest.raises(YozhError, match=f"^{name}: {field.name} takes .*, not <object"):
                dataclasses.replace(agent, **{field.name: object()})


@trained
def test_numbers_that_make_no_sense_are_refused_and_numbers_of_many_agents_are_not_looked_at(name: str):
    for field, value in {"learning_rate": -1.0, "max_gradient_norm": 0.0, "gamma": 1.5}.items():
        with pytest.raises(YozhError, match=f"^{name}: {field} "):
            dataclasses.replace(TRAINED[name], **{field: value})
        many = jax.vmap(lambda x, f=field: dataclasses.replace(TRAINED[name], **{f: x}))(jnp.full(2, value))
        assert jax.tree.leaves(getattr(many, field))[0].shape == (2,)


def tried(name: str) -> list[str]:
    """The structural fields that are not another agent's."""
    kind, like = type(SMALL[name].agent), SMALL[name].like
    if like is None:
        return list(SMALL[name].structural)
    assert issubclass(kind, type(SMALL[like].agent))
    theirs = set(SMALL[like].structural)
    return [f for f in SMALL[name].structural if f not in theirs or f in vars(kind).get("__annotations__", {})]


@pytest.mark.parametrize(("name", "field"), [(n, f) for n in SMALL for f in tried(n)])
def test_no_dead_structure(name: str, field: str):
    """Every structural hyper-parameter changes what is learnt."""
    small = SMALL[name]
    agent = dataclasses.replace(small.agent, **small.beside.get(field, {}))
    env = Pendulum(limit=limit(agent)) if field == "squash" else cartpole(agent)
    other = dataclasses.replace(agent, **{field: small.structural[field]})
    one, two = (learnt(train(a, env, turns(small.agent))[0]) for a in (agent, other))
    assert one.shape != two.shape or np.abs(one - two).max() > 1e-7


@pytest.mark.parametrize(("name", "field"), [(n, f) for n, small in SMALL.items() for f in small.room])
def test_room_changes_nothing(name: str, field: str):
    small = SMALL[name]
    agents = small.agent, dataclasses.replace(small.agent, **{field: small.room[field]})
    one, two = (learnt(train(a, cartpole(small.agent), SHORT)[0]) for a in agents)
    assert np.abs(one - two).mean() < 1e-3, "rounding apart, which a step of Adam can make as large as itself"


@trained
def test_seeds_and_numbers_vmapped_equal_a_loop(name: str):
    agent = over(TRAINED[name], STEPS)
    env = batched(agent, cartpole(agent))
    path = next(p for p, _ in jax.tree_util.tree_leaves_with_path(agent) if "learning_rate" in jax.tree_util.keystr(p))
    agents = [vary(agent, path, lambda x, s=s: x * s) for s in (0.3, 0.1)]
    seeds = jnp.arange(2)

    def run(agent: Agent, seed: jax.Array) -> fused.Run:
        return fused.advance(agent, env, fused.init(agent, env, jax.random.key(seed)), jnp.int32(SHORT))[0]

    together = jax.jit(jax.vmap(run))(jax.tree.map(lambda *x: jnp.stack(x), *agents), seeds)
    alone = jax.jit(run)
    for i, a in enumerate(agents):
        single = learnt(alone(a, seeds[i]))
        np.testing.assert_allclose(learnt(jax.tree.map(lambda x, i=i: x[i], together)), single, rtol=2e-3, atol=2e-4)


@every
def test_jit_equals_no_jit(name: str):
    agent = over(
        dataclasses.replace(SMALL[name].agent, **({"length": 4} if hasattr(SMALL[name].agent, "length") else {})), STEPS
    )
    env = batched(agent, cartpole(agent))
    start = fused.init(agent, env, jax.random.key(0))
    compiled, interpreted = start, start
    for _ in range(SMALL[name].moves):
        compiled = jax.jit(fused.turn)(agent, env, compiled)[0]
        with jax.disable_jit():
            interpreted = fused.turn(agent, env, interpreted)[0]
    assert not np.allclose(learnt(compiled), learnt(start))
    np.testing.assert_allclose(learnt(compiled), learnt(interpreted), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("core", [None, GRU(8)], ids=["feedforward", "recurrent"])
@pytest.mark.parametrize("name", [n for n, small in SMALL.items() if small.stores_policy])
def test_replaying_an_unroll_gives_back_what_was_stored(name: str, core: GRU | None):
    """Across episode ends, with the memory before the first step."""
    agent = over(dataclasses.replace(SMALL[name].agent, core=core), STEPS)
    env = batched(agent, probes.Recall())
    run = fused.init(agent, env, jax.random.key(0))
    params = agent.policy(run.state)
    sim, _ = rollout(agent, params, env, run.sim, 5, jnp.int32(0), jax.random.key(1))
    _, unroll = rollout(agent, params, env, sim, 20, jnp.int32(0), jax.random.key(2))
    assert unroll.step.last.any(), "the unroll must cross an episode's end"
    obs = agent.see(params, unroll.step)
    (policy, value), _ = networks.unroll(params.net, obs, unroll.memory[0], unroll.step.first)
    np.testing.assert_allclose(policy.log_prob(unroll.action), unroll.extras["log_prob"], atol=1e-5)
    if core is not None:
        forgetful = jax.tree.map(jnp.zeros_like, unroll.memory[0])
        (_, other), _ = networks.unroll(params.net, obs, forgetful, unroll.step.first)
        assert np.abs(other - value).max() > 1e-4, "the stored memory must matter"
        (_, other), _ = networks.unroll(params.net, obs, unroll.memory[0], jnp.zeros_like(unroll.step.first))
        assert np.abs(other - value).max() > 1e-4, "clearing it must matter"


def values(agent: Agent, run: fused.Run, obs: jax.Array) -> np.ndarray:
    """What the agent thinks each observation `[B, ...]` is worth."""
    n = len(jax.tree.leaves(obs)[0])
    step = TimeStep(obs, jnp.zeros(n), jnp.ones(n), jnp.ones(n, bool), jnp.zeros(n, bool))
    memory = jax.tree.map(lambda x: x[:1].repeat(n, 0), networks.network.initial_memory(run.state.net, 1))
    out, _ = agent.forward(run.state, memory, step)
    return np.asarray(out[1] if isinstance(out, tuple) else out.max(-1))


@valued
def test_endless_reward_is_worth_what_it_is(name: str):
    """Truncation is not termination: the value is 1 / (1 - gamma) whatever the time limit."""
    agent = dataclasses.replace(SMALL[name].probe, gamma=0.8, learning_rate=3e-3)
    found = []
    for ends in (False, True):
        run, _ = train(agent, probes.Endless(limit=5, ends=ends), 2500)
        found.append(float(values(agent, run, jnp.ones((1, 1)))[0]))
    assert abs(found[0] - 5.0) < 0.15, found
    assert found[1] < 4.3, found


@valued
@pytest.mark.parametrize("probe", ["Constant", "Seen", "Later"])
def test_probe_values(name: str, probe: str):
    agent = dataclasses.replace(SMALL[name].probe, learning_rate=3e-3)
    run, _ = train(agent, getattr(probes, probe)(), 1500)
    obs, truth = {
        "Constant": ([[0.0]], [1.0]),
        "Seen": ([[1.0], [-1.0]], [1.0, -1.0]),
        "Later": ([[0.0], [1.0]], [0.9, 1.0]),
    }[probe]
    np.testing.assert_allclose(values(agent, run, jnp.asarray(obs)), truth, atol=0.1)


def returns(agent: Agent, env: Env, length: int, episodes: int = 200) -> float:
    run, _ = train(agent, env, length)
    found = evaluation.evaluate(
        agent, agent.policy(run.state), Vectorised(playable(agent, env), 20), episodes=episodes, seed=1
    )
    return found["mean_return"]


CHOICES = [
    (n, p) for n, s in SMALL.items() for p in ("Chosen", "Matched", "Forbidden") if not (s.real and p == "Forbidden")
]
KINDS = [
    (n, p) for n, s in SMALL.items() if s.continuous for p in ("Several", "Bits", "Aim") if not s.real or p == "Aim"
]


@pytest.mark.parametrize(("name", "probe"), CHOICES)
def test_probe_policies(name: str, probe: str):
    assert returns(SMALL[name].probe, getattr(probes, probe)(), 300) >= 0.95


@pytest.mark.parametrize(("name", "probe"), KINDS)
def test_probe_action_spaces(name: str, probe: str):
    best = {"Several": 1.0, "Bits": 1.0, "Aim": 0.0}[probe]
    assert returns(SMALL[name].probe, getattr(probes, probe)(), 600) >= best - 0.1


@pytest.mark.parametrize("name", [n for n, small in SMALL.items() if small.recurrent])
def test_probe_memory(name: str):
    """What a recurrent policy solves and one without memory cannot."""
    agent = SMALL[name].probe
    assert returns(dataclasses.replace(agent, core=GRU(16)), probes.Recall(), 600) >= 0.95
    assert returns(agent, probes.Recall(), 100) <= 0.4
