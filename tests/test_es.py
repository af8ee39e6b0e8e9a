"""Black-box search: what each kind of directions makes of scores, and that members are what they are said to be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from tests.contract import NET, train
from yozh.agents import ARS, ES, FiniteDifferences, Linear
from yozh.agents.directions import Differences, Ranks, Top
from yozh.agents.schedules import over
from yozh.core import Spec, TimeStep, Unroll, YozhError
from yozh.environments import probes
from yozh.environments.batched import Vectorised
from yozh.environments.classic import CartPole
from yozh.runners import evaluation, fused
from yozh.runners.rollout import rollout
from yozh.spaces import Box, Discrete

SCORES = np.array([3.0, -1.0, 7.0, 2.0, 2.0, 100.0])
SPEC = Spec(Box((3,)), Discrete(2), horizon=5)


def test_ranks_by_hand():
    """From -1/2 to 1/2 in the order of the scores; who is level shares a rank."""
    ranks = np.array([0.6, 0.0, 0.8, 0.3, 0.3, 1.0]) - 0.5
    found = Ranks().weigh(jnp.asarray(SCORES), jnp.float32(0.1))
    np.testing.assert_allclose(found, ranks / (6 * 0.1), rtol=1e-5)
    outlier = np.where(SCORES == 100.0, 8.0, SCORES)
    np.testing.assert_allclose(Ranks().weigh(jnp.asarray(outlier), jnp.float32(0.1)), found)


def test_top_by_hand():
    """Pairs are (3, 2), (-1, 2), (7, 100); the two with the better best are the third and the first."""
    kept = np.array([3.0, 2.0, 7.0, 100.0])
    found = Top(2 / 3).weigh(jnp.asarray(SCORES), jnp.float32(0.1))
    expected = np.array([1.0, 0, -93, -1, 0, 93]) / (2 * 2 * kept.std())
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_level_scores_lead_nowhere():
    """Opposites that score alike cancel to the last bit, also where their deviation is nothing."""
    level = Top(0.5).weigh(jnp.full(64, 492.0), jnp.float32(0.1))
    np.testing.assert_array_equal(level, np.zeros(64))
    some = Top(0.5).weigh(jnp.full(64, 492.0).at[0].set(493.0), jnp.float32(0.1))
    np.testing.assert_array_equal(some != 0, np.isin(np.arange(64), [0, 32]))


def test_no_more_pairs_are_kept_where_scores_are_level():
    """All pairs are (0, 1): as many as were asked for count, whichever they are."""
    found = Top(0.25).weigh(jnp.repeat(jnp.array([0.0, 1.0]), 32), jnp.float32(0.1))
    assert np.count_nonzero(found[:32]) == np.count_nonzero(found[32:]) == 8


def test_differences_by_hand():
    found = Differences().weigh(jnp.asarray(SCORES), jnp.float32(0.1))
    np.testing.assert_allclose(found, (SCORES - 3.0) / 0.5, rtol=1e-5)


@pytest.mark.parametrize("directions", [Ranks(), Top(1.0), Differences()], ids=["ranks", "top", "differences"])
def test_a_linear_score_has_its_own_gradient(directions):
    """`J = c·θ`: all three point along c; the finite differences have its length too."""
    c = jnp.array([3.0, 0.0, -4.0])
    noise = directions.draw(jax.random.key(0), 4000, 3)
    found = directions.weigh(noise @ c * 0.1 + 5.0, jnp.float32(0.1)) @ noise
    np.testing.assert_allclose(found / jnp.linalg.norm(found), c / 5.0, atol=0.06)
    if isinstance(directions, Differences):
        np.testing.assert_allclose(found, c, atol=0.3)


def test_members_act_with_weights_of_their_own():
    agent = ES(torso=NET, streams=4, sigma=0.5, horizon=5)
    state = agent.init(jax.random.key(0), SPEC)
    population = agent.poised(agent.policy(state))
    middle, _ = ravel_pytree(state.net)
    members = jax.vmap(lambda net: ravel_pytree(net)[0])(population.nets)
    np.testing.assert_allclose(members - middle[None], 0.5 * agent.drawn(state, jnp.int32(0)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(members[:2] + members[2:], jnp.stack([2 * middle] * 2), atol=1e-5)
    assert not np.allclose(agent.drawn(state, jnp.int32(0)), agent.drawn(state, jnp.int32(1)))


def test_each_stream_is_one_member_even_where_streams_are_split():
    """An actor that has only some of the streams acts with their members."""
    agent = ES(torso=NET, streams=6, sigma=2.0, horizon=5, learning_rate=0.0)
    run, _ = train(agent, probes.Aim(), 1)
    params = agent.poised(agent.policy(run.state))
    memory = agent.initial_memory(agent.policy(run.state), 6)
    step = run.sim.step
    whole, _, _ = agent.act(params, memory, step, jax.random.key(0))
    part = jax.tree.map(lambda x: x[2:5], (memory, step))
    some, _, _ = agent.act(params, *part, jax.random.key(0))
    np.testing.assert_allclose(some, whole[2:5], rtol=1e-5)
    assert np.unique(np.round(np.asarray(whole), 5)).size > 2


def test_members_are_the_same_from_their_first_step_to_their_last():
    """Whatever σ's schedule says, and whatever is seen meanwhile: they change with an update, and only then."""
    agent = ES(torso=NET, streams=4, length=2, horizon=20, sigma=Linear(0.5, 0.1), normalise_observations=True)
    agent, env = over(agent, 2000), Vectorised(CartPole(limit=20), 4)
    runner, moved, updates = fused.Fused(agent, env), [], []
    run = runner.init(jax.random.key(0))

    def members() -> list[np.ndarray]:
        return [np.array(x) for x in jax.tree.leaves(agent.poised(agent.policy(run.state)))]

    for _ in range(30):
        before = members()
        run, metrics = runner.advance(run, 1)
        after = members()
        moved.append(not all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)))
        updates.append(int(metrics.updates) > 0)
    assert moved == updates and 2 <= sum(updates) <= 10
    assert run.state.statistics.count > 30
    assert float(agent.sigma(run.state.begun)) < 0.48


def test_a_step_is_measured_by_the_sigma_that_acted():
    """Differences of scores are divided by the σ under which they came about, however far its schedule has gone since."""
    agent = FiniteDifferences(torso=NET, streams=4, horizon=5, sigma=Linear(0.5, 0.1, 1.0, 100))
    none = jnp.zeros((6, 4))
    reward = jax.random.normal(jax.random.key(1), (6, 4))
    step = TimeStep(jnp.zeros((6, 4, 3)), reward, none + 1, none > 0, none > 0)
    batch = Unroll(step, none.astype(jnp.int32), {}, (), jnp.zeros(4, jnp.int32), jnp.ones(4))
    state = agent.init(jax.random.key(0), SPEC)
    late = eqx.tree_at(lambda s: s.counts.steps, state, jnp.int32(50))
    begun_late = eqx.tree_at(lambda s: s.begun, late, late.counts)
    early, late, last = (
        float(agent.learn(s, batch, jax.random.key(0))[1].metrics["gradient_norm"]) for s in (state, late, begun_late)
    )
    assert early == late > 0
    np.testing.assert_allclose(last, early * 0.5 / 0.3, rtol=1e-4)


def test_the_rollout_scores_members():
    """With a score of its own for each member, the step goes where the better ones stand."""
    agent = ES(torso=NET, streams=32, sigma=0.1, horizon=1, length=2, learning_rate=0.01)
    run, _ = train(agent, probes.Aim(), 1)
    _, unroll = rollout(agent, agent.policy(run.state), run_env(agent), run.sim, 4, jnp.int32(0), jax.random.key(2))
    assert len(np.unique(np.asarray(unroll.action[0]).round(6))) > 16


def run_env(agent: ES):
    return Vectorised(probes.Aim(), agent.streams)


def test_pairs_are_asked_for():
    with pytest.raises(YozhError, match="directions go in pairs, and 3 streams do not"):
        ES(streams=3)
    with pytest.raises(YozhError, match=r"share lies in \(0, 1\]"):
        ARS(directions=Top(0.0))
    with pytest.raises(YozhError, match="two streams or more"):
        FiniteDifferences(streams=1)
    with pytest.raises(YozhError, match=r"ars: sigma must be positive, not 0"):
        ARS(sigma=0.0)
    with pytest.raises(YozhError, match="only continuous actions are squashed, not Discrete"):
        ES(squash=True, horizon=5).init(jax.random.key(0), SPEC)
    with pytest.raises(YozhError, match="nothing says that this environment's end"):
        ES().init(jax.random.key(0), Spec(Box((3,)), Discrete(2)))


@pytest.mark.parametrize("agent", [
    ARS(streams=64, length=2, horizon=2, sigma=0.3, learning_rate=0.05, normalise_observations=False),
    FiniteDifferences(streams=16, length=2, horizon=2, sigma=0.3),
], ids=["ars", "finite-differences"])  # fmt: skip
def test_a_linear_policy_is_found(agent):
    run, _ = train(agent, probes.Matched(), 300)
    found = evaluation.evaluate(agent, agent.policy(run.state), Vectorised(probes.Matched(), 20), episodes=200, seed=1)
    assert found["mean_return"] >= 0.95
