"""Whole episodes: collected from unrolls of any length, complete, fairly chosen; and what REINFORCE makes of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract import NET, cartpole, train
from yozh.agents import A2C, ES, HCA, PPO, PQN, QAC, REINFORCE, VPG, QProp
from yozh.agents.base import State
from yozh.agents.estimators import GAE, Mean, Nothing, NStep, RewardToGo, TotalReturn, Value, VTrace
from yozh.agents.reinforce import Regression
from yozh.core import Experience, Report, Spec, TimeStep, Unroll, YozhError
from yozh.environments import make, probes
from yozh.environments.batched import Vectorised
from yozh.environments.classic import CartPole
from yozh.environments.host import AsHost
from yozh.losses import weighted_mean
from yozh.runners import evaluation, fused
from yozh.runners.hosted import Hosted
from yozh.spaces import Box, Discrete
from yozh.stores import Episodes, Replay

LENGTHS = [[3, 1, 4, 2, 6, 1, 2, 7, 3], [2, 2, 5, 1, 1, 1, 9, 2, 4, 2], [8, 1, 1, 3, 2, 5, 4, 4]]
"""Transitions of the episodes of three streams, one after the other."""


def world() -> Unroll:
    """All that happens: observation `[moment, episode, step of the episode]`, action 10 times the moment."""
    moments = min(sum(n + 1 for n in stream) for stream in LENGTHS)
    rows = [[(e, k, n) for e, n in enumerate(stream) for k in range(n + 1)][:moments] for stream in LENGTHS]
    episode, k, n = np.array(rows).transpose(2, 1, 0)
    time = np.broadcast_to(np.arange(moments)[:, None], episode.shape)
    obs = jnp.asarray(np.stack([time, episode, k], -1), jnp.float32)
    first, last = jnp.asarray(k == 0), jnp.asarray(k == n)
    reward = jnp.where(first, 0.0, obs[..., 0])
    step = TimeStep(obs, reward, jnp.ones_like(reward), first, last)
    return Unroll(step, 10 * obs[..., 0], {}, (), jnp.zeros(3, jnp.int32), jnp.ones(3))


def unrolls(length: int) -> list[Unroll]:
    everything = world()
    parts = []
    for i in range(0, len(everything.step.reward) - length, length):
        part = jax.tree.map(
            lambda x, i=i: x[i : i + length + 1], (everything.step, everything.action, everything.extras)
        )
        unknown = part[1].at[-1].set(-1.0)  # of the next unroll
        parts.append(Unroll(part[0], unknown, part[2], (), everything.version, everything.weight))
    return parts


def by_hand(length: int, longest: int) -> list[list[np.ndarray]]:
    """The batches: of every stream the moments of the first episode that begins after the batch before."""
    everything, batches, begun = world(), [], 0
    first, last = np.asarray(everything.step.first), np.asarray(everything.step.last)
    while True:
        batch = []
        for b in range(3):
            opened = [t for t in range(begun, len(first) - 1) if first[t, b]]
            ended = [t for t in range(opened[0], len(last)) if last[t, b]] if opened else []
            if not ended:
                return batches
            batch.append(np.arange(opened[0], min(ended[0], opened[0] + longest) + 1))
        ready = max(-(-moments[-1] // length) for moments in batch) * length  # the end of the unroll that completes it
        if ready > length * len(unrolls(length)):
            return batches
        batches.append(batch)
        begun = ready


@pytest.mark.parametrize("longest", [9, 4])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_first_whole_episode_of_each_stream(length: int, longest: int):
    store = Episodes(longest)
    parts = unrolls(length)
    state, found = store.init(parts[0]), []
    for part in parts:
        state = jax.jit(store.add)(state, part)
        if store.ready(state):
            batch, handle = store.sample(state, jax.random.key(0))
            state = store.feedback(state, handle, None)
            found.append(batch)
    expected = by_hand(length, longest)
    assert len(found) == len(expected) >= 2
    for batch, streams in zip(found, expected, strict=True):
        weight = 1.0 - np.asarray(batch.step.last[:-1], np.float32)
        for b, moments in enumerate(streams):
            n = len(moments) - 1
            np.testing.assert_array_equal(batch.step.obs[: n + 1, b, 0], moments)
            np.testing.assert_array_equal(batch.action[:n, b], 10.0 * moments[:n])
            np.testing.assert_array_equal(weight[:, b], np.arange(longest) < n)
            assert batch.step.last[n:, b].all() and not batch.step.reward[n + 1 :, b].any()
            assert batch.step.first[0, b] and not batch.step.first[1:, b].any()


def test_a_broken_off_episode_is_begun_again():
    store, parts = Episodes(9), unrolls(2)
    state = store.add(store.init(parts[0]), parts[0])
    assert state.opened.all()
    assert not store.sever(state).opened.any()


def test_the_estimators_by_hand():
    """One stream with rewards 1, 2, 4 and one that ends after 8; gamma 1/2."""
    reward = jnp.array([[0, 0], [1, 8], [2, 0], [4, 0]], jnp.float32)
    last = jnp.array([[0, 0], [0, 1], [0, 1], [1, 1]], bool)
    step = TimeStep(jnp.zeros((4, 2)), reward, jnp.ones((4, 2)), jnp.zeros((4, 2), bool), last)
    u = Unroll(step, jnp.zeros((4, 2)), {}, (), jnp.zeros(2, jnp.int32), jnp.ones(2))
    value, gamma, real = jnp.full((4, 2), 0.5), jnp.float32(0.5), np.array([[1, 1], [1, 0], [1, 0]], bool)

    def advantage(estimator) -> np.ndarray:
        worth = estimator(u, reward, value, gamma)
        np.testing.assert_array_equal(worth.weight > 0, real)
        return np.where(real, worth.advantage, 0.0)

    total, to_go = np.array([[3.0, 8], [3, 0], [3, 0]]), np.array([[3.0, 8], [4, 0], [4, 0]])
    np.testing.assert_allclose(advantage(TotalReturn()), total)
    np.testing.assert_allclose(advantage(RewardToGo(Nothing())), to_go)
    np.testing.assert_allclose(advantage(RewardToGo(Value())), np.where(real, to_go - 0.5, 0))
    np.testing.assert_allclose(advantage(RewardToGo(Mean())), np.where(real, to_go - 4.75, 0))
    # Cut, not terminated: these bootstrap from the value at the end, which the reward to go does not.
    cut = to_go + 0.5 * np.array([[0.125, 0.5], [0.25, 0], [0.5, 0]]) - np.where(real, 0.5, 0)
    for estimator in (GAE(1.0), NStep(3), VTrace()):
        np.testing.assert_allclose(advantage(estimator), cut, atol=1e-6)


def test_vtrace_looks_at_the_ratio():
    one = jnp.ones((2, 1))
    step = TimeStep(
        jnp.zeros((3, 1)), jnp.ones((3, 1)), jnp.ones((3, 1)), jnp.zeros((3, 1), bool), jnp.zeros((3, 1), bool)
    )
    u = Unroll(step, jnp.zeros((3, 1)), {}, (), jnp.zeros(1, jnp.int32), jnp.ones(1))
    zero, gamma = jnp.zeros((3, 1)), jnp.float32(1.0)
    np.testing.assert_allclose(VTrace()(u, step.reward, zero, gamma, 0.5 * one).target, [[0.75], [0.5]])
    np.testing.assert_allclose(VTrace()(u, step.reward, zero, gamma, 9.0 * one).target, [[2.0], [1.0]])


def collected(agent: REINFORCE) -> tuple[State, Unroll]:
    """Fresh weights, and a batch of episodes of unequal length; the running return of a step is 100 times its moment."""
    state = agent.init(jax.random.key(0), Spec(Box((3,)), Discrete(2), horizon=9))
    store = Episodes(9)
    for i, p in enumerate(unrolls(5)[:3]):
        p = dataclasses.replace(
            p,
            action=(p.action > 60).astype(jnp.int32),
            memory=(((), ()), None),
            extras={"discounted": 100 * p.step.obs[..., 0]},
        )
        content = store.init(p) if i == 0 else content
        content = store.add(content, p)
    assert store.ready(content)
    return state, store.sample(content, jax.random.key(0))[0]


def test_the_gradient_is_that_of_the_weighted_cross_entropy():
    """The loss as printed: `-1/N Σ_i Σ_t log π(a_t|s_t) γ^t G_t`, episode by episode and step by step."""
    agent = REINFORCE(
        torso=NET, streams=3, length=5, horizon=9, gamma=0.5, estimator=RewardToGo(), discount_states=True
    )
    state, batch = collected(agent)

    def printed(net) -> jax.Array:
        total = jnp.zeros(())
        for b in range(3):
            n = int(jnp.argmax(batch.step.last[:, b]))
            for t in range(n):
                g = sum(0.5 ** (k - t) * batch.step.reward[k + 1, b] for k in range(t, n))
                policy, _ = net(batch.step.obs[t, b], ((), ()))[0]
                total = total - policy.log_prob(batch.action[t, b]) * 0.5**t * g / 3
        return total

    mine = jax.grad(lambda net: agent.loss(net, state, (batch, batch.step.reward), None)[0])(state.net)
    for one, two in zip(jax.tree.leaves(mine), jax.tree.leaves(jax.grad(printed)(state.net)), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


def test_only_steps_of_the_episodes_count_in_the_scale_of_rewards():
    """A batch is as long as its longest episode; what fills up the others is none of their returns."""
    agent = REINFORCE(torso=NET, streams=3, length=5, horizon=9, scale_rewards=True)
    state, batch = collected(agent)
    ends = [int(jnp.argmax(batch.step.last[:, b])) for b in range(3)]
    assert len(set(ends)) > 1
    returns = np.concatenate([batch.extras["discounted"][1 : n + 1, b] for b, n in enumerate(ends)])
    scale = agent.learn(state, batch, jax.random.key(0))[0].rewards
    assert scale is not None and scale.count == sum(ends)
    np.testing.assert_allclose(scale.mean, returns.mean(), rtol=1e-5)
    np.testing.assert_allclose(scale.variance, returns.var(), rtol=1e-5)


class Watched(REINFORCE):
    """Tells by how much the log-probabilities that it learns from differ from those that acted."""

    def learn(self, state: State, batch: Unroll, key: jax.Array) -> tuple[State, Report]:
        (policy, _, _), real = self.judge(state.net, state, (batch, batch.step.reward), None), ~batch.step.last
        gap = jnp.abs(policy.log_prob(batch.action) - batch.extras["log_prob"])
        state, report = super().learn(state, batch, key)
        return state, Report(report.metrics | {"gap": jnp.max(jnp.where(real, gap, 0.0))}, report.finite)


@pytest.mark.parametrize("kind", ["fused", "hosted"])
def test_what_is_learnt_from_is_seen_as_acting_saw_it(kind: str):
    """Statistics of observations stand still while episodes are collected over many unrolls, also where environments are opened anew."""
    agent = Watched(torso=NET, streams=2, length=4, horizon=60, normalise_observations=True)
    env = Vectorised(CartPole(limit=60), 2)
    runner = fused.Fused(agent, env) if kind == "fused" else Hosted(agent, AsHost(env))
    run = runner.init(jax.random.key(0))
    for _ in range(2):
        run, metrics = runner.advance(run, 60)
        assert 2 <= int(metrics.updates) <= 30 and float(metrics.report["gap"]) < 1e-4
        run = runner.reopen(run, anew=True)
    runner.close()
    assert run.state.statistics.count > 50


def test_a_batch_makes_known_what_was_seen_in_it():
    """Once it is learnt from, and only what belongs to its episodes."""
    agent = REINFORCE(torso=NET, streams=3, length=5, horizon=9, normalise_observations=True)
    state, batch = collected(agent)
    assert agent.observe(state, unrolls(5)[0]).statistics.count == 0
    seen = agent.learn(state, batch, jax.random.key(0))[0].statistics
    real = np.concatenate([batch.step.obs[: int(jnp.argmax(batch.step.last[:, b])), b] for b in range(3)])
    assert seen.count == len(real)
    np.testing.assert_allclose(seen.mean, real.mean(0), rtol=1e-5)
    np.testing.assert_allclose(seen.variance, real.var(0), rtol=1e-4)


def test_a_fitted_value_leaves_the_policy_alone():
    """However long it is fitted, the policy takes its one step; and the longer, the better the fit."""
    found = []
    for epochs in (1, 60):
        agent = VPG(torso=NET, streams=4, length=8, horizon=40, fit=Regression(epochs, 1e-2))
        run, metrics = train(agent, cartpole(agent), 5)
        assert int(metrics.updates) == 1
        found.append((run.state.net, float(metrics.report["value_loss"])))
    (one, worse), (two, better) = found
    for part in ("actor", "policy"):
        for a, b in zip(jax.tree.leaves(getattr(one, part)), jax.tree.leaves(getattr(two, part)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert better < 0.7 * worse
    still = dataclasses.replace(agent, fit=Regression(60, 0.0))
    (before, _), (after, _) = (train(still, cartpole(still), n) for n in (0, 5))
    for a, b in zip(jax.tree.leaves(before.state.net.critic), jax.tree.leaves(after.state.net.critic), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_cannot_work_is_refused():
    with pytest.raises(YozhError, match="a2c: TotalReturn needs whole episodes"):
        A2C(estimator=TotalReturn())
    with pytest.raises(YozhError, match="ppo: RewardToGo needs whole episodes"):
        PPO(estimator=RewardToGo())
    with pytest.raises(YozhError, match="lam lies in"):
        VTrace(1.5)
    with pytest.raises(YozhError, match=r"rho_clip must be positive, not 0"):
        VTrace(rho_clip=0.0)
    with pytest.raises(YozhError, match=r"c_clip must not be negative, and is -1"):
        VTrace(c_clip=-1.0)
    with pytest.raises(YozhError, match=r"lam lies in \[0, 1\], not \[0.5 1.5\]"):
        GAE(jnp.array([0.5, 1.5]))
    with pytest.raises(YozhError, match="vpg: there is no value to fit"):
        VPG(estimator=RewardToGo())
    with pytest.raises(YozhError, match="vpg: a value that is fitted apart"):
        VPG(shared=True)
    endless = Spec(Box((3,)), Discrete(2))
    with pytest.raises(YozhError, match="nothing says that this environment's end"):
        REINFORCE().init(jax.random.key(0), endless)
    with pytest.raises(YozhError, match="set horizon=501"):
        REINFORCE().init(jax.random.key(0), dataclasses.replace(endless, horizon=501))


@pytest.mark.parametrize("kind", [A2C, ES, HCA, PQN, QAC, REINFORCE])
def test_what_older_policies_did_is_refused(kind: type):
    """An agent that learns only from what its present policy does, with a replay for a store."""

    class Old(kind):
        @property
        def experience(self) -> Experience:
            return Experience(streams=8, unroll=8, store=Replay(1000, 8, 8))

    with pytest.raises(
        YozhError, match=r"old: .*present policy did, and Replay hands out|(qac|hca|pqn): .*and Replay hands out"
    ):
        Old()
    QProp()


@pytest.mark.parametrize(
    ("id", "backend", "horizon"),
    [("CartPole-v1", "jax", 500), ("Acrobot-v1", "jax", 500), ("MountainCar-v0", "envpool", 200),
     ("MountainCar-v0", "gymnasium", 200), ("Catch", "jax", 9)],
)  # fmt: skip
def test_environments_say_how_long_episodes_get(id: str, backend: str, horizon: int):
    env = make(id, 1, backend=backend)
    assert env.spec.horizon == horizon
    env.close()


def test_weighted_mean_of_a_baseline_leaves_out_what_does_not_count():
    target, weight = jnp.array([[1.0, 5.0], [3.0, 99.0]]), jnp.array([[1.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(Mean()(target, target, weight), np.full((2, 2), float(weighted_mean(target, weight))))


@pytest.mark.parametrize("estimator", [TotalReturn(), TotalReturn(Mean()), RewardToGo(), RewardToGo(Mean()), GAE(0.9)],
                         ids=["total", "total less mean", "to go", "to go less mean", "gae"])  # fmt: skip
def test_every_estimator_finds_the_right_action(estimator):
    agent = REINFORCE(learning_rate=1e-2, torso=NET, streams=16, length=2, gamma=0.9, horizon=3, estimator=estimator)
    run, _ = train(agent, probes.Matched(), 600)
    found = evaluation.evaluate(agent, agent.policy(run.state), Vectorised(probes.Matched(), 20), episodes=200, seed=1)
    assert found["mean_return"] >= 0.95
