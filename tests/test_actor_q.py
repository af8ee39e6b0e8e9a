"""ACER, the Q actor-critic and off-policy MDPO beyond the contract: their formulas, the replay beside fresh unrolls, separate rates."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from tests.contract import NET, SMALL, learnt, train
from yozh import networks
from yozh.agents import A2C, ACER, QAC, OffPolicyMDPO
from yozh.agents.acer import corrected, trust_region
from yozh.agents.off_policy_mdpo import mirror
from yozh.agents.scales import Scaled
from yozh.agents.schedules import over
from yozh.agents.targets import Hard
from yozh.core import Agent, TimeStep, Unroll, YozhError
from yozh.distributions import Categorical
from yozh.environments import probes
from yozh.environments.batched import Vectorised
from yozh.networks import GRU
from yozh.runners import fused
from yozh.runners.rollout import rollout
from yozh.stores import FreshReplay

N = 4
"""Actions."""


def draw(*keys: int) -> list[jax.Array]:
    return [jax.random.normal(jax.random.key(k), (3, N)) for k in keys]


def test_the_projection_solves_the_quadratic_programme():
    """min |g - z|^2 / 2 with k.z <= delta, by a solver that knows no closed form."""
    g, k = draw(3, 4)
    found = np.asarray(trust_region(g, k, jnp.float32(0.3)))
    for i in range(3):
        a, b = np.asarray(g[i], np.float64), np.asarray(k[i], np.float64)
        best = minimize(lambda z, a=a: 0.5 * np.sum((a - z) ** 2), np.zeros(N), method="SLSQP",
                        constraints={"type": "ineq", "fun": lambda z, b=b: 0.3 - b @ z}, options={"ftol": 1e-12})  # fmt: skip
        np.testing.assert_allclose(found[i], best.x, atol=1e-4)
    apart = np.abs(found - np.asarray(g)).max(1) > 1e-6
    assert apart.tolist() == (np.sum(np.asarray(g * k), 1) > 0.3).tolist() and 0 < apart.sum() < 3
    np.testing.assert_array_equal(trust_region(g, jnp.zeros_like(k), jnp.float32(0.3)), g)


def test_the_direction_within_the_trust_region_is_the_gradient_of_the_divergence():
    """To first order a step along z takes KL(average || policy) up by at most delta."""
    logits, other, g = draw(2, 3, 4)
    average, policy = Categorical(other), Categorical(logits)
    slope = jax.grad(lambda x: jnp.sum(average.kl(Categorical(x))))(logits)
    k = jnp.exp(policy.log_probs) - jnp.exp(average.log_probs)
    np.testing.assert_allclose(k, slope, atol=1e-6)
    assert (jnp.sum(k * trust_region(g, k, jnp.float32(0.01)), -1) <= 0.01 + 1e-6).all()


@pytest.mark.parametrize("clip", [0.5, 1.0, 2.0, 1e6])
def test_truncation_with_its_correction_has_no_bias(clip: float):
    """Over all actions of the policy that acted, the mean of g is the exact policy gradient, wherever ratios are truncated."""
    logits, behaviour, q = draw(5, 6, 7)
    policy, acted = Categorical(logits), Categorical(2.0 * behaviour)
    truth = jax.grad(lambda x: jnp.sum(jnp.exp(jax.nn.log_softmax(x)) * q))(logits)
    mean = jnp.zeros_like(logits)
    for a in range(N):
        taken = jnp.full(3, a)
        g = corrected(policy.log_probs, acted.log_probs, taken, q[:, a], q, jnp.float32(clip))
        mean = mean + jnp.exp(acted.log_prob(taken))[:, None] * g
    np.testing.assert_allclose(mean, truth, atol=1e-5)


def test_the_correction_as_the_paper_prints_it():
    """By the gradient of log pi, action by action (eq. 9)."""
    logits, behaviour, q = draw(8, 9, 10)
    action, worth, clip = jnp.array([0, 3, 1]), jnp.array([1.0, -2.0, 0.5]), 1.5

    def surrogate(x: jax.Array) -> Any:
        now, then = Categorical(logits), Categorical(behaviour)
        total = jnp.zeros(())
        for i in range(3):
            chance, ratio = jnp.exp(now.log_probs[i]), jnp.exp(now.log_probs[i] - then.log_probs[i])
            value, log_pi = jnp.sum(chance * q[i]), jax.nn.log_softmax(x[i])
            total += jnp.minimum(clip, ratio[action[i]]) * log_pi[action[i]] * (worth[i] - value)
            for a in range(N):
                total += chance[a] * jnp.maximum(0.0, (ratio[a] - clip) / ratio[a]) * log_pi[a] * (q[i, a] - value)
        return total

    found = corrected(
        Categorical(logits).log_probs, Categorical(behaviour).log_probs, action, worth, q, jnp.float32(clip)
    )
    np.testing.assert_allclose(found, jax.grad(surrogate)(logits), atol=1e-5)


def unrolled(agent: Agent, *, streams: int, other: bool) -> tuple[Any, Unroll]:
    """A state, and an unroll across the ends of episodes; with `other`, under other weights."""
    agent, env = over(agent, 100), Vectorised(probes.Recall(), streams)
    run = fused.init(agent, env, jax.random.key(0))
    state, actor = (eqx.tree_at(lambda s: s.net, run.state, moved(run.state.net, seed)) for seed in (1, 2))
    _, u = rollout(agent, agent.policy(actor if other else state), env, run.sim, 22, jnp.int32(0), jax.random.key(1))
    late = jax.tree.map(lambda x: x[2:], (u.step, u.action, u.extras))  # the first step is in the midst of an episode
    u = Unroll(*late, (), u.version, u.weight)
    assert u.step.last.any(), "no episode ended"
    return state, u


def moved(net: Any, seed: int) -> Any:
    """Weights far from those of a policy that is all but uniform."""
    return jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(seed * 1000 + x.size), x.shape), net)


def looked(agent: Any, state: Any, net: Any, u: Unroll) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and values, step by step."""
    lp, q, memory = [], [], net.initial_memory()
    if agent.core is not None:
        memory = jax.tree.map(lambda m: m[0], u.extras["memory"])
    for t in range(len(u.step.reward)):
        step = jax.tree.map(lambda x, t=t: x[t], u.step)
        (policy, value), memory = networks.forward(net, step.obs, memory, step.first)
        lp.append(np.asarray(policy.log_probs, np.float64))
        q.append(np.asarray(value, np.float64))
    return np.stack(lp), np.stack(q)


@pytest.mark.parametrize("core", [None, GRU(8)], ids=["feedforward", "recurrent"])
def test_acers_loss_by_loops(core: GRU | None):
    """Retrace by its recursion, g, its projection against the average policy, and the critic's error."""
    agent = ACER(torso=NET, core=core, streams=3, length=20, batch=0, truncation=1.2, delta=1e-3, gamma=0.9, lam=0.8,
                 entropy_coefficient=0.1, reward=Scaled(2.0))  # fmt: skip
    state, u = unrolled(agent, streams=3, other=True)
    far = jax.tree.map(lambda x: 2.0 * x, state.net)
    state = eqx.tree_at(lambda s: s.target, state, far)
    (lp, q), (average, _) = looked(agent, state, state.net, u), looked(agent, state, far, u)
    reward, discount, last = (np.asarray(x, np.float64) for x in (u.step.reward, u.step.discount, u.step.last))
    mu, action = np.asarray(u.extras["log_probs"], np.float64), np.asarray(u.action)
    policy_loss, errors, projected = [], [], 0
    for b in range(3):
        traced = 0.0  # lambda rho (Qret - Q) of the next step
        for t in reversed(range(20)):
            pi, a = np.exp(lp[t, b]), action[t, b]
            v_next = np.exp(lp[t + 1, b]) @ q[t + 1, b]
            beyond = 0.0 if last[t + 1, b] else traced
            worth = 2.0 * reward[t + 1, b] + 0.9 * discount[t + 1, b] * (v_next + beyond)
            ratio = np.exp(lp[t, b] - mu[t, b])
            traced = 0.8 * min(1.0, ratio[a]) * (worth - q[t, b, a])
            if last[t, b]:
                continue
            v, entropy = pi @ q[t, b], -pi @ lp[t, b]
            score = np.eye(2) - pi  # row a: the gradient of log pi(a)
            g = min(1.2, ratio[a]) * (worth - v) * score[a]
            g = g + sum(pi[c] * max(0.0, 1 - 1.2 / ratio[c]) * (q[t, b, c] - v) * score[c] for c in range(2))
            g = g - 0.1 * pi * (lp[t, b] + entropy)
            k = pi - np.exp(average[t, b])
            z = g - max(0.0, k @ g - 1e-3) / (k @ k) * k
            projected += not np.allclose(z, g)
            policy_loss.append(-z @ lp[t, b])
            errors.append(0.5 * (worth - q[t, b, a]) ** 2)
    loss, (metrics, _) = agent.loss(state.net, state, u, jax.random.key(0))
    assert len(errors) < 60 and 0 < projected < len(errors)
    np.testing.assert_allclose(metrics["policy_loss"], np.mean(policy_loss), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(metrics["value_loss"], np.mean(errors), rtol=1e-4)
    np.testing.assert_allclose(metrics["projected"], projected / len(errors), atol=0.02)
    np.testing.assert_allclose(loss, np.mean(policy_loss) + 0.5 * np.mean(errors), rtol=1e-3)


@pytest.mark.parametrize("core", [None, GRU(8)], ids=["feedforward", "recurrent"])
def test_on_policy_nothing_is_corrected(core: GRU | None):
    """Right after acting, the replayed policy is the one that acted: every ratio is 1, and it is its own average."""
    agent = ACER(torso=NET, core=core, streams=3, length=20, batch=0)
    state, u = unrolled(agent, streams=3, other=False)
    state = eqx.tree_at(lambda s: s.target, state, state.net)
    _, (metrics, _) = agent.loss(state.net, state, u, jax.random.key(0))
    np.testing.assert_allclose(metrics["ratio"], 1.0, atol=1e-5)
    assert abs(float(metrics["kl"])) < 1e-6 and metrics["projected"] == 0


@pytest.mark.parametrize(("sarsa", "worth"), [(False, "advantage"), (True, "value"), (False, "corrected")])
def test_the_q_actor_critics_loss_by_loops(sarsa: bool, worth: str):
    agent = QAC(torso=NET, streams=3, length=20, gamma=0.9, lam=0.7, sarsa=sarsa, worth=worth, entropy_coefficient=0.0)
    state, u = unrolled(agent, streams=3, other=False)
    lp, q = looked(agent, state, state.net, u)
    reward, discount, last = (np.asarray(x, np.float64) for x in (u.step.reward, u.step.discount, u.step.last))
    action, policy_loss, errors = np.asarray(u.action), [], []
    for b in range(3):
        traced = 0.0
        for t in reversed(range(20)):
            pi, a, then = np.exp(lp[t, b]), action[t, b], action[t + 1, b]
            ahead = q[t + 1, b, then] if sarsa else np.exp(lp[t + 1, b]) @ q[t + 1, b]
            beyond = 0.0 if last[t + 1, b] else traced
            target = reward[t + 1, b] + 0.9 * discount[t + 1, b] * (ahead + beyond)
            traced = 0.7 * (target - q[t, b, a])
            if not last[t, b]:
                psi = {"advantage": q[t, b, a] - pi @ q[t, b], "value": q[t, b, a], "corrected": target - q[t, b, a]}
                policy_loss.append(-lp[t, b, a] * psi[worth] - (pi @ q[t, b] if worth == "corrected" else 0.0))
                errors.append(0.5 * (target - q[t, b, a]) ** 2)
    _, (metrics, _) = agent.loss(state.net, state, u, jax.random.key(0))
    np.testing.assert_allclose(metrics["policy_loss"], np.mean(policy_loss), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(metrics["value_loss"], np.mean(errors), rtol=1e-4)


@pytest.mark.parametrize("worth", ["value", "advantage", "corrected"])
def test_what_q_must_be_for_the_gradient_to_be_right(worth: str):
    """The mean over all actions of a step's gradient, its rewards known and Q made up: with its correction the baseline changes nothing
    of it, while Q alone decides otherwise. The critic learns nothing from the policy's loss."""
    agent = QAC(torso=NET, streams=2, gamma=0.0, lam=1.0, worth=worth, q_coefficient=0.0, entropy_coefficient=0.0)
    state, u = unrolled(agent, streams=2, other=False)
    u = jax.tree.map(lambda x: x[:2], (u.step, u.action, u.extras))
    assert not u[0].last[0].any()
    lp = jax.jit(lambda net: agent.unroll(net, state, whole(u))[0].log_probs)(state.net)[0]
    paid = jnp.asarray([1.0, -3.0, 2.0, 0.5])[: lp.shape[1]]

    def exact(net: Any) -> jax.Array:
        policy, _ = agent.unroll(net, state, whole(u))
        return -jnp.mean(jnp.exp(policy.log_probs[0]) @ paid)

    def mean(net: Any) -> jax.Array:
        total = jnp.zeros(())
        for a in range(len(paid)):
            batch = eqx.tree_at(lambda u: (u[0].reward, u[1]), u, (jnp.full((2, 2), paid[a]), jnp.full((2, 2), a)))
            both = [agent.loss(net, state, one(whole(batch), b), jax.random.key(0))[0] for b in range(2)]
            total += sum(jnp.exp(lp[b, a]) * loss / 2 for b, loss in enumerate(both))
        return total

    found, truth = jax.grad(mean)(state.net), jax.grad(exact)(state.net)
    assert not any(np.any(x) for x in jax.tree.leaves((found.critic, found.value)))
    near = [np.allclose(x, y, atol=1e-5) for x, y in zip(*map(jax.tree.leaves, (found, truth)), strict=True)]
    assert all(near) == (worth == "corrected")


def whole(parts: Any) -> Unroll:
    n = parts[1].shape[1]
    return Unroll(*parts, (), jnp.zeros(n, jnp.int32), jnp.ones(n))


def one(u: Unroll, b: int) -> Unroll:
    """One stream of it."""
    return whole(jax.tree.map(lambda x: x[:, b : b + 1], (u.step, u.action, u.extras)))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("agent", [A2C, QAC])
def test_a_critic_at_rate_0_stays_as_it_was_drawn(agent: Any, shared: bool):
    agent = dataclasses.replace(SMALL[agent.__name__.lower()].probe, critic_rate=0.0, shared=shared)
    run = fused.init(over(agent, 100), Vectorised(probes.Chosen(), 16), jax.random.key(0))
    trained, _ = train(agent, probes.Chosen(), 10)
    before, after = run.state.net, trained.state.net
    jax.tree.map(np.testing.assert_array_equal, (before.value, before.critic), (after.value, after.critic))
    assert np.abs(before.policy.layer.weight - after.policy.layer.weight).max() > 1e-3


def steps(start: int, length: int, streams: int = 2) -> Unroll:
    """Transitions whose observation is their time, and whose reward is their stream."""
    time = jnp.broadcast_to(jnp.arange(start, start + length + 1, dtype=jnp.float32)[:, None], (length + 1, streams))
    stream = jnp.broadcast_to(jnp.arange(streams, dtype=jnp.float32)[None], time.shape)
    no = jnp.zeros(time.shape, bool)
    step = TimeStep(time, stream, jnp.ones_like(time), no, no)
    return Unroll(step, no, {}, (), jnp.zeros(streams, jnp.int32), jnp.ones(streams))


def test_the_newest_unrolls_come_first_and_replay_beside_them():
    store = FreshReplay(capacity=24, batch=50, window=4)
    state = store.init(steps(0, 4))
    assert not store.ready(state)
    for start in range(0, 20, 4):
        state = store.add(state, steps(start, 4))
    batch, _ = store.sample(state, jax.random.key(0))
    time, stream = np.asarray(batch.step.obs), np.asarray(batch.step.reward)
    assert time.shape == (5, 52) and (np.diff(time, axis=0) == 1).all()
    assert (time[0, :2] == 16).all() and stream[0, :2].tolist() == [0, 1]
    assert {*time[0, 2:].astype(int)} == {*range(8, 17)}, "the last twelve transitions of each stream"
    assert batch.weight.shape == batch.version.shape == (52,)
    alone, _ = FreshReplay(24, 0, 4).sample(state, jax.random.key(0))
    assert alone.step.obs.shape == (5, 2) and (alone.step.obs[0] == 16).all()


@pytest.mark.slow
def test_a_super_small_replay_is_enough():
    """Two unrolls are kept, and each update learns from both beside the fresh one."""
    agent = dataclasses.replace(SMALL["acer"].probe, capacity=2 * 8 * 8, batch=16)
    _, metrics = train(agent, probes.Matched(), 200)
    assert float(metrics.tally.returns) / float(metrics.tally.episodes) > 0.6
    assert 0.5 < float(metrics.report["ratio"]) < 1.5


@pytest.mark.parametrize("temperature", [0.0, 0.5], ids=["hard", "soft"])
def test_the_policys_step_ends_where_mirror_descent_says(temperature: float):
    """pi proportional to (pi_k exp(t Q))^(1 / (1 + t tau)), reached by gradient steps from pi_k."""
    q, logits = draw(11, 12)
    before, t = Categorical(logits), 0.7
    slope = jax.grad(lambda x: jnp.sum(mirror(Categorical(x), before, q, jnp.float32(t), jnp.float32(temperature))))
    x = jax.lax.fori_loop(0, 2000, lambda _, x: x - 0.3 * slope(x), logits)
    exact = Categorical((before.log_probs + t * q) / (1.0 + t * temperature))
    assert (exact.kl(before) > 0.01).all()
    assert float(exact.kl(Categorical(x)).max()) < 1e-5
    few = jax.lax.fori_loop(0, 30, lambda _, x: x - 0.7 * slope(x), logits)
    assert float(exact.kl(Categorical(few)).max()) < 1e-3


@pytest.mark.parametrize("core", [None, GRU(8)], ids=["feedforward", "recurrent"])
def test_off_policy_mdpos_loss_by_loops(core: GRU | None):
    agent = OffPolicyMDPO(torso=NET, core=core, streams=3, sequence=20, capacity=100, batch=3, gradient_steps=1, warm_up=0,
                          temperature=0.3, step=0.5, gamma=0.9, reward=Scaled(2.0))  # fmt: skip
    state, u = unrolled(agent, streams=3, other=True)
    state = eqx.tree_at(lambda s: s.target, state, jax.tree.map(lambda x: 2.0 * x, state.net))
    (lp, q), (_, fixed) = looked(agent, state, state.net, u), looked(agent, state, state.target, u)
    reward, discount, last = (np.asarray(x, np.float64) for x in (u.step.reward, u.step.discount, u.step.last))
    policy_loss, errors = [], []
    for t in range(20):
        for b in range(3):
            if not last[t, b]:
                pi, ahead = np.exp(lp[t, b]), np.exp(lp[t + 1, b])
                worth = ahead @ (fixed[t + 1, b] - 0.3 * lp[t + 1, b])
                target = 2.0 * reward[t + 1, b] + 0.9 * discount[t + 1, b] * worth
                errors.append(0.5 * (target - q[t, b, int(u.action[t, b])]) ** 2)
                policy_loss.append(-pi @ q[t, b] + 0.3 * pi @ lp[t, b])  # pi is pi_k: no divergence yet
    moved, report = agent.learn(state, u, jax.random.key(0))
    np.testing.assert_allclose(report.metrics["value_loss"], np.mean(errors), rtol=1e-4)
    np.testing.assert_allclose(report.metrics["policy_loss"], np.mean(policy_loss), rtol=1e-3, atol=1e-6)
    assert int(moved.counts.updates) == 1


@pytest.mark.slow
def test_the_policy_before_stands_still_for_all_gradient_steps():
    """The divergence is 0 at the first of them, and grows from it."""
    few, many = (dataclasses.replace(SMALL["offpolicymdpo"].agent, gradient_steps=n, batch=12) for n in (1, 8))
    state, u = unrolled(few, streams=12, other=False)
    window = jax.tree.map(lambda x: x[:2], (u.step, u.action, u.extras))
    once = Unroll(*window, (), jnp.zeros(12, jnp.int32), jnp.ones(12))
    wide = jax.tree.map(lambda x: jnp.tile(x, (1, 8, *[1] * (x.ndim - 2))), window)
    often = Unroll(*wide, (), jnp.zeros(96, jnp.int32), jnp.ones(96))
    one, eight = (over(a, 400).learn(state, b, jax.random.key(0))[1] for a, b in ((few, once), (many, often)))
    assert abs(float(one.metrics["kl"])) < 1e-6 < 1e-5 < float(eight.metrics["kl"])


@pytest.mark.slow
def test_the_target_network_follows_after_every_gradient_step():
    agent = over(dataclasses.replace(SMALL["offpolicymdpo"].agent, target=Hard(1)), 400)
    run, _ = train(agent, probes.Chosen(), 20)
    np.testing.assert_array_equal(learnt(run), np.concatenate([np.ravel(x) for x in jax.tree.leaves(run.state.target)]))


@pytest.mark.parametrize(
    ("agent", "settings", "message"),
    [
        (ACER, {"truncation": 0.0}, "acer: truncation must be positive, not 0"),
        (ACER, {"delta": 0.0}, "acer: delta must be positive, not 0"),
        (ACER, {"lam": 1.5}, r"acer: lam lies in \[0, 1\], not 1.5"),
        (ACER, {"batch": -1}, "acer: batch must not be negative, and is -1"),
        (ACER, {"capacity": 100}, "acer: an unroll of 8 x 20 steps does not fit into a replay of 100"),
        (QAC, {"lam": -0.1}, r"qac: lam lies in \[0, 1\]"),
        (QAC, {"worth": "q"}, "qac: worth is advantage, value or corrected, not 'q'"),
        (QAC, {"length": 0}, "qac: length must be positive, not 0"),
        (QAC, {"critic_rate": -1.0}, "qac: critic_rate must not be negative, and is -1"),
        (A2C, {"critic_rate": -1.0}, "a2c: critic_rate must not be negative, and is -1"),
        (OffPolicyMDPO, {"temperature": -1.0}, "offpolicymdpo: temperature must not be negative, and is -1"),
        (OffPolicyMDPO, {"step": 0.0}, "offpolicymdpo: step must be positive, not 0"),
        (OffPolicyMDPO, {"capacity": 60}, "offpolicymdpo: an unroll of 8 x 8 steps does not fit into a replay of 60"),
        (OffPolicyMDPO, {"gradient_steps": 0}, "offpolicymdpo: gradient_steps must be positive, not 0"),
        (OffPolicyMDPO, {"capacity": 800, "sequence": 100, "warm_up": 10}, "offpolicymdpo: sequence 100 does not fit into 100"),
        (OffPolicyMDPO, {"capacity": 800}, "offpolicymdpo: warm_up lies between 0 and the store of 800, not at 1000"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(agent: Any, settings: dict[str, Any], message: str):
    with pytest.raises(YozhError, match=message):
        agent(**settings)
