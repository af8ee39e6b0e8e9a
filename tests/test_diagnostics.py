"""What is measured beside learning: values against what came of them, and what is replayed."""

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import yozh
from tests.contract import SMALL
from tests.test_prioritised import filled, given, store
from tests.test_stores import B, unrolls
from yozh.agents import DQN, PQN
from yozh.agents.backups import Munchausen
from yozh.agents.heads import Bootstrapped, Horizons, Hyperbolic
from yozh.agents.risks import CVaR
from yozh.agents.sampling import Prioritised, Uniform
from yozh.agents.scales import Clipped, Squashed
from yozh.agents.values import QuantileRegression
from yozh.app.report import write_report
from yozh.core import TimeStep
from yozh.environments import probes
from yozh.environments.batched import Vectorised
from yozh.environments.host import AsHost
from yozh.networks import GRU, Auto
from yozh.runners import evaluation
from yozh.runners.foresight import Foresight
from yozh.runners.fused import Fused
from yozh.runners.replayed import BARS, _figures, replayed
from yozh.stores import HostReplay, Replay

GAMMA = 0.9


def test_sums_are_those_of_whole_episodes():
    """Against a double loop over each episode: every state's value, and the discounted rewards after it."""
    random, episodes, foresight = np.random.default_rng(0), 0, Foresight.none((1,))
    value, reward = random.normal(size=(2, 400)).astype(np.float32)
    start, first = 0, True
    for t in range(1, 400):  # the step that arrives at moment t
        last = not first and random.random() < 0.2
        cut = last and random.random() < 0.5
        flags = (np.array([x]) for x in (first, last))
        step = TimeStep((), reward[t : t + 1], np.array([float(cut or not last)], np.float32), *flags)
        foresight = foresight.onward(value[t - 1 : t], reward[t : t + 1], step, np.float32(GAMMA))
        if first:
            start, first = t, False
        elif last:
            end = (
                t - 1 if cut else t
            )  # a truncated episode ends one state earlier, at what that was thought to be worth
            came = 0.0
            for i in range(start, end):
                came += sum(GAMMA ** (k - i) * reward[k + 1] for k in range(i, end))
                came += GAMMA ** (end - i) * value[end] * cut
            expected = (value[start:end].sum(), came, end - start)
            np.testing.assert_allclose([x[0] for x in foresight[:3]], expected, rtol=1e-4, atol=1e-4)
            assert foresight.largest[0] == np.abs(value[start:t]).max()
            episodes, first = episodes + 1, True
    assert episodes > 40


def params_of(agent: DQN, env) -> Any:
    return agent.policy(agent.init(jax.random.key(3), env.spec))


def believed(agent: DQN, params: Any, obs: list[float]) -> list[float]:
    """The largest value at each observation."""
    zero, no = jnp.zeros(len(obs)), jnp.zeros(len(obs), bool)
    q, _ = agent.forward(params, None, TimeStep(jnp.array(obs)[:, None], zero, zero + 1, no, no))
    return q.max(-1).tolist()


@pytest.mark.parametrize("hosted", [False, True])
def test_of_two_steps_the_values_and_the_returns_are_known(hosted: bool):
    """Rewards 0 and 1, whatever is done: γ and 1 come of the two states."""
    agent, env = DQN(gamma=GAMMA, reward=Clipped(0.5)), Vectorised(probes.Later(), 5)
    params = params_of(agent, env)
    found = evaluation.evaluate(agent, params, AsHost(env) if hosted else env, episodes=20, seed=0)
    values = believed(agent, params, [0.0, 1.0])
    assert found["mean_return"] == 1.0, "rewards as they come"
    assert found["discounted_return"] == pytest.approx((GAMMA + 1) / 2 * 0.5), "rewards as they are learnt from"
    assert found["predicted_value"] == pytest.approx(np.mean(values), rel=1e-5)
    assert found["overestimation"] == pytest.approx(found["predicted_value"] - found["discounted_return"])
    assert found["largest_value"] == pytest.approx(np.abs(values).max(), rel=1e-5)


@pytest.mark.parametrize("hosted", [False, True])
def test_a_time_limit_cuts_no_return(hosted: bool):
    """Ten rewards of 1, and as much more as is expected of the last state but one."""
    agent, env = DQN(gamma=GAMMA), Vectorised(probes.Endless(limit=10), 5)
    params = params_of(agent, env)
    found = evaluation.evaluate(agent, params, AsHost(env) if hosted else env, episodes=5, seed=0)
    (value,) = believed(agent, params, [1.0])
    came = [sum(GAMMA**k for k in range(9 - i)) + GAMMA ** (9 - i) * value for i in range(9)]
    assert found["discounted_return"] == pytest.approx(np.mean(came), rel=1e-5)
    assert found["predicted_value"] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("parts", [{"backup": Munchausen()}, {"heads": Hyperbolic()}])
def test_who_learns_no_discounted_return_expects_none(parts: dict[str, Any]):
    env = Vectorised(probes.Later(), 2)
    agent = DQN(**parts)
    params, (_, step) = params_of(agent, env), env.reset(jax.random.key(0))
    assert agent.expected(params, agent.initial_memory(params, 2), step) is None


def test_of_agents_without_values_of_actions_nothing_is_said():
    agent, env = SMALL["a2c"].probe, Vectorised(probes.Later(), 4)
    found = evaluation.evaluate(agent, agent.policy(agent.init(jax.random.key(0), env.spec)), env, episodes=4, seed=0)
    assert "overestimation" not in found and found["mean_return"] == 1.0


@pytest.mark.parametrize("parts", [{"core": GRU(4)}, {"heads": Bootstrapped(3)}, {"heads": Horizons((0.5,))},
                                   {"values": QuantileRegression(quantiles=8, risk=CVaR(0.3)), "scale": Squashed()}])  # fmt: skip
def test_what_is_expected_is_the_mean_of_the_action_chosen(parts: dict[str, Any]):
    """Of the first answer of several discounts, of all answers of an ensemble; whatever else it is chosen by."""
    agent, env = DQN(torso=Auto((4,)), **parts), Vectorised(probes.Matched(), 6)

    @jax.jit
    def asked(key: jax.Array) -> tuple:
        params, (_, step) = params_of(agent, env), env.reset(key)
        memory = agent.initial_memory(params, 6)
        chosen, *_ = agent.act(params, memory, step, key, explore=False)
        return (
            chosen,
            agent.look(params.net, params, memory, step, None)[0].outcomes,
            agent.expected(params, memory, step),
        )

    chosen, outcomes, expected = asked(jax.random.key(0))
    means = np.asarray((outcomes.worth * outcomes.chance).sum(-1))
    means = means[:, None] if means.ndim == 2 else means
    means = means[:, 0] if isinstance(agent.heads, Horizons) else means.mean(1)
    np.testing.assert_allclose(expected, means[np.arange(6), chosen], rtol=1e-5)


def test_pqn_expects_its_largest_value():
    agent, env = PQN(torso=Auto((4,))), Vectorised(probes.Matched(), 6)
    params, (_, step) = agent.policy(agent.init(jax.random.key(0), env.spec)), env.reset(jax.random.key(0))
    q, _ = agent.forward(params, (), step)
    np.testing.assert_array_equal(agent.expected(params, (), step), np.asarray(q).max(-1))


def test_ages_are_those_of_the_windows_drawn():
    """Observations count moments, so that a window tells its own age; with one key `draws` and `sample` draw the same."""
    to = Replay(40 * B, 64, 3)
    state, newest = filled(to, [5] * 7), 35.0
    batch, _ = to.sample(state, jax.random.key(0))
    drawn = to.draws(state, jax.random.key(0), 64)
    np.testing.assert_array_equal(drawn.age, B * (newest - np.asarray(batch.step.obs[0, :, 0])))
    assert drawn.weight is None and drawn.priority is None
    host = HostReplay(40 * B, 64, 3)
    host.init(unrolls([5])[0])
    for unroll in unrolls([5] * 7):
        host.add(jax.tree.map(np.asarray, unroll))
    np.testing.assert_array_equal(host.draws(jax.random.key(0), 64).age, drawn.age)


@pytest.mark.parametrize("kind", ["proportional", "rank"])
def test_priorities_are_those_that_were_given(kind: str):
    to = store(kind=kind, window=2)
    state, known = given(to, filled(to, [4] * 5, ends=(9, 13)))
    drawn = to.draws(state, jax.random.key(0), 4000)
    found = np.unique(np.asarray(drawn.priority).round(3))
    np.testing.assert_allclose(found[found > 0], np.unique(known[known > 0].round(3)), atol=2e-3)
    assert (found == 0).any(), "of windows that are never drawn"
    share = np.asarray(state.masses.levels[0], float) / float(state.masses.total())
    age = (int(state.ring.head) - np.arange(len(share)) // B) % state.ring.moments * B
    assert float(drawn.age.mean()) == pytest.approx(float((share * age).sum()), rel=0.02)
    assert float(drawn.weight.mean()) == pytest.approx((share > 0).sum() / (int(state.ring.filled - 1) * B), rel=0.05)


@pytest.mark.parametrize("replay", [Uniform(), Prioritised(0.6, beta=0.5)])
def test_what_a_run_replays(replay):
    agent = DQN(torso=Auto((4,)), replay=replay, capacity=90, streams=B, batch=8, warm_up=0, update_every=B)
    env = Vectorised(probes.Chosen(), B)
    runner, to = Fused(agent, env), agent.experience.store
    run = runner.init(jax.random.key(0))
    assert replayed(agent, runner, run) is None, "an empty replay"
    store = filled(to, [5] * 7)
    if isinstance(replay, Prioritised):
        store = eqx.filter_jit(to.feedback)(store, jnp.arange(30, 38, dtype=jnp.int32), jnp.linspace(0.01, 0.5, 8))
    found = replayed(agent, runner, eqx.tree_at(lambda r: r.store, run, store))
    assert found is not None and set(found) == (
        {"age"} if isinstance(replay, Uniform) else {"age", "priority", "weight"}
    )
    for figures in found.values():
        assert len(figures["counts"]) == BARS == len(figures["edges"]) - 1
        assert figures["edges"][0] <= figures["p5"] <= figures["p50"] <= figures["p95"] <= figures["edges"][-1] * 1.001
    assert found["age"]["edges"][0] >= B and found["age"]["edges"][-1] <= 90 + B
    if "weight" in found:
        assert found["weight"]["edges"][-1] == 1.0, "the largest of each batch counts fully"
        edges = found["priority"]["edges"]
        assert (edges[0], edges[-1]) == pytest.approx((0.01, 1.0), rel=1e-3)


def test_figures_are_of_what_is_finite():
    assert _figures(np.array([])) is None and _figures(np.array([np.nan, np.inf])) is None
    found = _figures(np.array([1.0, np.inf, 3.0]))
    assert found is not None and found["mean"] == 2.0 and sum(found["counts"]) == 2


def test_fresh_experience_is_not_replayed():
    agent = SMALL["a2c"].probe
    runner = Fused(agent, Vectorised(probes.Chosen(), agent.experience.streams))
    assert replayed(agent, runner, runner.init(jax.random.key(0))) is None


@pytest.mark.slow
def test_looking_changes_nothing_and_stands_in_the_report(tmp_path: Path):
    agent = DQN(replay=Prioritised(), capacity=2000, warm_up=200, streams=4)
    often = yozh.train(agent, "CartPole-v1", steps=2000, eval_every=500, eval_episodes=10, out=tmp_path / "often")
    once = yozh.train(agent, "CartPole-v1", steps=2000, eval_every=9000, eval_episodes=10)
    assert all(map(jnp.array_equal, *(jax.tree.leaves(t.run.state) for t in (often, once))))
    rows = [json.loads(line) for line in (tmp_path / "often" / "metrics.jsonl").read_text().splitlines()]
    told = [row for row in rows if "evaluation" in row]
    assert len(told) >= 4 and all({"age", "priority", "weight"} == set(row["replay"]) for row in told)
    text = write_report(tmp_path / "often").read_text()
    for words in ("<h2>Values</h2>", "<h2>Replay</h2>", "predicted value", "age of what is replayed", "rewards allow"):
        assert words in text, words
