"""Q-Prop: its gradient against the exact one, its critic's targets by hand, and that the two learn from what they should."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract import NET, learnt, train
from yozh import networks
from yozh.agents import TRPO, QProp
from yozh.agents.estimators import GAE, RewardToGo
from yozh.agents.qprop import share, worth
from yozh.agents.scales import Scaled
from yozh.agents.schedules import over
from yozh.agents.targets import Soft
from yozh.core import Spec, TimeStep, Unroll, YozhError
from yozh.environments import probes
from yozh.environments.batched import Vectorised
from yozh.environments.classic import Pendulum
from yozh.losses import weighted_mean
from yozh.networks import GRU, MLP, Network
from yozh.runners import fused
from yozh.runners.rollout import rollout
from yozh.spaces import Box, Discrete, MultiBinary

GRID = np.linspace(-8.0, 8.0, 16_000)
CHANCE = np.exp(-(GRID**2) / 2) / np.exp(-(GRID**2) / 2).sum()
"""Of the standard normal: sums over it are integrals to seven digits, or to three where what is summed jumps."""


class Known(Network):
    """Q(s, a) = -(a - s)², what the bandit pays."""

    def embed(self, obs: Any) -> Any:
        return obs

    def recur(self, x: Any, memory: Any) -> Any:
        return x, memory

    def read(self, x: Any, legal: Any) -> Any:
        return -jnp.sum((x[1] - x[0]) ** 2)

    def initial_memory(self) -> Any:
        return ()


BANDIT = Spec(Box((1,)), Box((1,)))


def bandit(agent: QProp, critic: Network | None = None, **weights: float) -> Any:
    """A state whose policy and value are linear in the observation."""
    state = agent.init(jax.random.key(3), BANDIT)
    where = {"theta": lambda n: n.policy.layer.weight, "bias": lambda n: n.policy.layer.bias, "log_std": lambda n: n.policy.log_std,
             "slope": lambda n: n.value.weight, "value": lambda n: n.value.bias}  # fmt: skip
    for name, x in weights.items():
        state = eqx.tree_at(lambda s, at=where[name]: at(s.net), state, jnp.full_like(where[name](state.net), x))
    return state if critic is None else eqx.tree_at(lambda s: s.critic.q, state, critic)


def pulls(s: float, action: jax.Array, reward: jax.Array) -> Unroll:
    """Episodes of one step, one a stream."""
    n = len(action)
    obs, rewards = jnp.full((2, n, 1), s), jnp.stack([jnp.zeros(n), reward])
    late = jnp.broadcast_to(jnp.array([[False], [True]]), (2, n))
    step = TimeStep(obs, rewards, 1.0 - late.astype(jnp.float32), ~late, late)
    return Unroll(step, jnp.stack([action, action]), {}, (), jnp.zeros(n, jnp.int32), jnp.ones(n))


def gradients(agent: QProp, state: Any, s: float, action: jax.Array, reward: jax.Array) -> Any:
    """The gradient of what shall grow of each action alone, `[n, ...]`, at the weights that acted."""

    @jax.jit
    @jax.vmap
    def one(a: jax.Array, r: jax.Array) -> Any:
        u = pulls(s, a[None], r[None])
        empty = state.net.initial_memory()
        (acted, _), _ = networks.unroll(state.net, u.step.obs, empty, u.step.first)
        u = dataclasses.replace(u, extras={"log_prob": acted.log_prob(u.action)}, memory=(empty, None))
        samples = agent.samples(state, u, None)[1]

        def grown(net: Any) -> jax.Array:
            return weighted_mean(agent.surrogate(agent.look(net, samples, None)[0], samples), samples.weight)

        return jax.grad(grown)(state.net)

    return one(action, reward)


PLAIN = QProp(torso=MLP(()), critic_widths=(8,), estimator=GAE(1.0))


@pytest.mark.parametrize("eta", ["full", "none"])
def test_whatever_the_critic_says_the_mean_is_the_policy_gradient(eta: str):
    """A critic as it was drawn, a value that is wrong, a reward that is no line: the exact mean over the actions against the
    derivative of the expected reward, of the mean's weights and of the deviation."""
    agent, s = dataclasses.replace(PLAIN, eta=eta), 0.7
    state = bandit(agent, theta=0.4, bias=-0.3, log_std=-0.5, slope=0.9, value=0.2)
    noise = jnp.asarray(GRID, jnp.float32)

    def reward(a: jax.Array) -> jax.Array:
        return jnp.sin(2.0 * a) + 0.3 * a**2

    def expected(net: Any) -> jax.Array:
        mean = net.policy.layer.weight[0, 0] * s + net.policy.layer.bias[0]
        return jnp.sum(jnp.asarray(CHANCE, jnp.float32) * reward(mean + jnp.exp(net.policy.log_std[0]) * noise))

    action = 0.4 * s - 0.3 + np.exp(-0.5) * noise
    found = gradients(agent, state, s, action[:, None], reward(action))
    mean = jax.tree.map(lambda g: np.tensordot(CHANCE, np.asarray(g, np.float64), 1), found)
    truth = jax.grad(expected)(state.net)
    assert abs(truth.policy.layer.bias[0]) > 0.1 and abs(truth.policy.log_std[0]) > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), mean.policy, truth.policy)


KNOWN = {"none": (2.0, 18.0), "full": (2.0, 10.0), "conservative": (1.8012, 7.753), "aggressive": (1.6023, 9.555)}
"""Mean and variance at s = 1, a ~ N(0, 1), R = -(a - 1)², V = -2, by hand: with η = 1 the gradient is 2 + a - a³, without 2a² + a - a³;
an η that looks at the action adds 2 E[η (1 - a²)] to the mean, which ∫ (1 - a²) φ = a φ solves; its variance is by quadrature."""


@pytest.mark.parametrize("eta", KNOWN)
def test_a_right_critic_lowers_the_variance_and_an_eta_that_looks_at_the_action_shifts_the_mean(eta: str):
    agent = dataclasses.replace(PLAIN, eta=eta)
    state = bandit(agent, Known(), theta=0.0, bias=0.0, log_std=0.0, slope=0.0, value=-2.0)
    action = jnp.asarray(GRID, jnp.float32)
    found = gradients(agent, state, 1.0, action[:, None], -((action - 1.0) ** 2)).policy.layer.weight
    g = np.asarray(found, np.float64).ravel()
    mean, variance = KNOWN[eta]
    assert abs(CHANCE @ g - mean) < 1e-3, CHANCE @ g
    var = CHANCE @ g**2 - (CHANCE @ g) ** 2
    assert abs(var - variance) < 1e-2, var


def test_the_share_follows_the_sign_of_both():
    advantage, line = jnp.array([1.0, -1.0, 2.0, -2.0]), jnp.array([0.5, -0.5, -0.1, 0.1])
    said = {"conservative": [1, 1, 0, 0], "aggressive": [1, 1, -1, -1], "full": [1, 1, 1, 1], "none": [0, 0, 0, 0]}
    for eta, expected in said.items():
        assert share(eta, advantage, line).tolist() == expected


BOTH = dict(learning_rate=1e-2, estimator=GAE(0.9), torso=NET, streams=2, length=8, epochs=2, minibatches=2, solver_steps=5,
            max_gradient_norm=0.1)  # fmt: skip
FEW = dict(critic_widths=(8,), critic_steps=8, batch=8, capacity=64, critic_learning_rate=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts", [dict(scale_rewards=True, normalise_observations=True), dict(core=GRU(8), noisy=True, minibatches=1)], ids=["scaled", "recurrent"]
)  # fmt: skip
def test_without_the_baseline_it_is_trpo(parts: dict[str, Any]):
    """Turn for turn the same weights; with the baseline they are others."""
    env = Pendulum(limit=5)  # the second unroll begins in the midst of an episode
    parts = BOTH | parts
    one, _ = train(TRPO(normalise_advantage=False, **parts), env, 4)
    two, three = (train(QProp(**FEW, **parts, eta=eta), env, 4)[0] for eta in ("none", "full"))
    np.testing.assert_allclose(learnt(one), learnt(two), atol=2e-4)
    assert np.abs(learnt(one) - learnt(three)).max() > 3e-3


def moved(x: Any, seed: int) -> Any:
    """Weights a little apart, so that no network is like its target."""
    return jax.tree.map(lambda w: w + 0.3 * jax.random.normal(jax.random.key(seed * 1000 + w.size), w.shape), x)


def met(agent: QProp) -> tuple[Any, Unroll]:
    """A state of which every network is another one, and an unroll of 12 streams in which episodes end in both ways."""
    env = Vectorised(Pendulum(limit=7), 12)
    run = fused.init(over(agent, 100), env, jax.random.key(0))
    state = run.state
    apart = (moved(state.net, 1), moved(state.target, 2), moved(state.critic.q, 3), moved(state.critic.target, 4))
    state = eqx.tree_at(lambda s: (s.net, s.target, s.critic.q, s.critic.target), state, apart)
    _, u = rollout(agent, agent.policy(state), env, run.sim, agent.length, jnp.int32(0), jax.random.key(1))
    assert u.step.last[7].all() and u.step.first[8].all()
    ends = jnp.asarray(u.step.discount).at[7, ::2].set(0.0)  # every other one terminates there, and is not only cut
    return state, Unroll(eqx.tree_at(lambda s: s.discount, u.step, ends), u.action, u.extras, (), u.version, u.weight)


SMALLEST = QProp(torso=NET, streams=4, length=16, critic_widths=(8,), critic_steps=1, batch=128, capacity=256, gamma=0.9,
                 reward=Scaled(2.0), target=Soft(0.25), estimator=GAE(0.8), epochs=1, minibatches=2, solver_steps=3)  # fmt: skip
"""All of the replay drawn is one batch: 8 windows of 16 transitions."""


def columns(u: Unroll, part: slice) -> Unroll:
    step, action, extras = jax.tree.map(lambda x: x[:, part], (u.step, u.action, u.extras))
    return Unroll(step, action, extras, (), u.version[part], u.weight[part])


def test_the_critics_target_by_hand():
    """Step by step: nothing follows a terminated one, a truncated one is bootstrapped, what lies between episodes does not count."""
    state, u = met(SMALLEST)
    old = columns(u, slice(4, None))
    obs, action = np.asarray(old.step.obs), np.asarray(old.action)

    @jax.jit
    def asked(net: Any, about: Any, o: jax.Array, a: jax.Array) -> tuple[jax.Array, jax.Array]:
        return about((o, a), ())[0], net(o, net.initial_memory())[0][0].mean

    q, target, policy = state.critic.q, state.critic.target, state.target
    errors, ends = [], {"terminated": 0, "truncated": 0}
    for b in range(8):
        for t in range(16):
            if old.step.last[t, b]:
                continue
            goal = 2.0 * float(old.step.reward[t + 1, b])
            over = bool(old.step.last[t + 1, b])
            if over and old.step.discount[t + 1, b] == 0:
                ends["terminated"] += 1
            else:
                ends["truncated"] += over
                _, there = asked(policy, target, obs[t + 1, b], action[t + 1, b])
                goal += 0.9 * float(asked(policy, target, obs[t + 1, b], there)[0])
            errors.append(0.5 * (goal - float(asked(policy, q, obs[t, b], action[t, b])[0])) ** 2)
    assert ends == {"terminated": 4, "truncated": 12} and len(errors) == 8 * 14
    _, report = eqx.filter_jit(SMALLEST.judged)(state, old, jax.random.key(0))
    np.testing.assert_allclose(report.metrics["q_loss"], np.mean(errors), rtol=1e-4)


def test_what_shall_grow_by_loops():
    """Under weights that did not act."""
    agent = dataclasses.replace(SMALLEST, eta="conservative")
    state, u = met(agent)
    state = eqx.tree_at(lambda s: s.critic.q.value.weight, state, replace_fn=lambda w: 20.0 * w)  # a line that counts
    fresh, net, there = columns(u, slice(4)), state.net, moved(state.net, 5)
    step, empty = fresh.step, net.initial_memory()
    (policy, value), _ = networks.unroll(net, step.obs, empty, step.first)
    (later, _), _ = networks.unroll(there, step.obs, empty, step.first)
    fresh = dataclasses.replace(fresh, extras={"log_prob": policy.log_prob(fresh.action)}, memory=(empty, None))
    (mean, spread), (new_mean, new_spread) = ((np.asarray(p.mean, np.float64)[..., 0], np.asarray(p.log_std, np.float64)[..., 0]) for p in (policy, later))  # fmt: skip
    value, q = np.asarray(value, np.float64), state.critic.q
    sloped = jax.jit(jax.vmap(jax.vmap(jax.grad(lambda a, o: q((o, a), ())[0]))))
    slope = np.asarray(sloped(policy.mean, step.obs), np.float64)[..., 0]
    grown, etas, left, plain = [], [], [], []
    for b in range(4):
        trace = 0.0
        for t in reversed(range(16)):
            last, discount = bool(step.last[t + 1, b]), 0.9 * float(step.discount[t + 1, b])
            delta = 2.0 * float(step.reward[t + 1, b]) + discount * value[t + 1, b] - value[t, b]
            trace = delta + (0.0 if last else discount * 0.8 * trace)
            if step.last[t, b]:
                continue
            action = float(fresh.action[t, b, 0])
            line = slope[t, b] * (action - mean[t, b])
            eta = 1.0 if trace * line > 0 else 0.0
            log_prob, now = (
                -0.5 * ((action - m[t, b]) / np.exp(s[t, b])) ** 2 - s[t, b] for m, s in ((mean, spread), (new_mean, new_spread))
            )  # fmt: skip
            grown.append(np.exp(now - log_prob) * (trace - eta * line) + eta * slope[t, b] * new_mean[t, b])
            etas.append(eta)
            left.append(trace - eta * line)
            plain.append(trace)

    @eqx.filter_jit
    def said(state: Any, there: Any, fresh: Any) -> Any:
        samples = agent.samples(state, fresh, None)[1]
        found = agent.surrogate(agent.look(there, samples, None)[0], samples)
        return weighted_mean(found, samples.weight), agent.improved(state.net, samples, None)[1]

    found, metrics = said(state, there, fresh)
    assert 0 < np.mean(etas) < 1
    np.testing.assert_allclose(found, np.mean(grown), rtol=2e-3)
    np.testing.assert_allclose(metrics["eta"], np.mean(etas), rtol=1e-5)
    np.testing.assert_allclose(metrics["variance_left"], np.var(left) / np.var(plain), rtol=2e-3)


def test_the_policy_learns_from_fresh_steps_alone_and_the_critic_from_replay_alone():
    """And the policy first: its baseline knows no action that it is the baseline of."""
    state, u = met(SMALLEST)
    reward, learn = jnp.asarray(u.step.reward), eqx.filter_jit(SMALLEST.learn)
    (one, _), (old, _), (new, _) = (
        learn(state, eqx.tree_at(lambda u: u.step.reward, u, reward), jax.random.key(0))
        for reward in (reward, reward.at[:, 4:].mul(3.0), reward.at[:, :4].mul(3.0))
    )

    def same(a: Any, b: Any) -> bool:
        return all((x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    assert same(one.net, old.net) and not same(one.critic.q, old.critic.q)
    assert same(one.critic.q, new.critic.q) and not same(one.net, new.net)
    assert not same(state.net, one.net) and not same(state.critic.q, one.critic.q)
    mixed = lambda now, before: jax.tree.map(lambda a, b: 0.25 * a + 0.75 * b, now, before)  # noqa: E731
    for found, now, before in (
        (one.critic.target, one.critic.q, state.critic.target),
        (one.target, one.net, state.target),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, mixed(now, before))


@pytest.mark.slow
def test_the_critic_finds_what_actions_are_worth():
    """Of `Aim`, where nothing follows: minus the squared distance to half the sign seen."""
    agent = QProp(learning_rate=1e-3, critic_learning_rate=1e-2, torso=NET, critic_widths=(16,), streams=8, length=8, critic_steps=16,
                  batch=32, capacity=20_000, epochs=1, minibatches=1)  # fmt: skip
    run, _ = train(agent, probes.Aim(), 300)
    action = jnp.linspace(-0.9, 0.9, 7)[None, :, None]
    for sign in (-1.0, 1.0):
        found = worth(run.state.critic.q, jnp.full((1, 7, 1), sign), action)
        np.testing.assert_allclose(found[0], -((np.asarray(action[0, :, 0]) - sign / 2) ** 2), atol=0.15)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"eta": "half"}, "eta is conservative, aggressive, full, none, not 'half'"),
        ({"squash": True}, "squash bends the noise.*or take trpo"),
        ({"normalise_advantage": True}, "an advantage that is normalised.*leave normalise_advantage false"),
        ({"shared": True}, "a natural step of a shared trunk"),
        ({"delta": 0.0}, "delta must be positive, not 0"),
        ({"shrink": 1.0}, r"shrink lies in \(0, 1\), not 1"),
        ({"batch": 0}, "batch must be positive, not 0"),
        ({"critic_steps": -1}, "critic_steps must be positive, not -1"),
        ({"critic_widths": (8, 0)}, r"critic_widths are positive, not \(8, 0\)"),
        ({"critic_steps": 3, "batch": 5}, "3 x 5 transitions are no whole number of windows of 256"),
        ({"capacity": 100}, "an unroll of 8 x 256 steps does not fit into a replay of 100"),
        ({"critic_learning_rate": -1.0}, "critic_learning_rate must be positive"),
        ({"estimator": RewardToGo()}, "RewardToGo needs whole episodes"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], says: str):
    with pytest.raises(YozhError, match=f"qprop: {says}"):
        QProp(**settings)


@pytest.mark.parametrize("space", [Discrete(3), MultiBinary(2)])
def test_other_actions_are_sent_to_agents_that_take_them(space: Any):
    with pytest.raises(
        YozhError, match=r"qprop takes Box actions, not .*; qac takes Discrete ones, trpo and ppo take any"
    ):
        QProp().init(jax.random.key(0), Spec(Box((3,)), space))
