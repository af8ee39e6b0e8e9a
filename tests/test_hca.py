"""Hindsight credit assignment beyond the contract: what belongs to which future, both losses, what the classifier learns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract import NET, train
from yozh import networks, returns
from yozh.agents import HCA
from yozh.agents.hca import found
from yozh.agents.scales import Scaled
from yozh.agents.schedules import over
from yozh.core import Unroll, YozhError
from yozh.environments import probes
from yozh.environments.batched import Vectorised
from yozh.environments.delayed_effect import DelayedEffect
from yozh.losses import squash
from yozh.networks import GRU
from yozh.runners import fused
from yozh.runners.rollout import rollout


def unrolled(agent: HCA, env: Any) -> tuple[Any, Unroll]:
    """A state in which hindsight is more than the policy, and an unroll across the ends of episodes."""
    agent, env = over(agent, 100), Vectorised(env, 3)
    run = fused.init(agent, env, jax.random.key(0))
    noise = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), run.state.net)
    state = run.state.__class__(**{**vars(run.state), "net": noise})
    _, u = rollout(agent, agent.policy(state), env, run.sim, 20, jnp.int32(0), jax.random.key(1))
    assert u.step.last[1:-1].any() and not u.step.last[-2:].any(), "episodes end within it, and none at its end"
    return state, u


def literal(reward: np.ndarray, discount: np.ndarray, last: np.ndarray, value: np.ndarray, gamma: float) -> np.ndarray:
    """What was found at step k, discounted to step s, `[T+1, T]`, of one stream."""
    length = len(reward) - 1
    worth = np.zeros((length + 1, length))
    for s in range(length):
        factor = 1.0
        for k in range(s + 1, length + 1):
            factor *= gamma * discount[k]
            if last[k] or k == length:
                worth[k, s] = factor * value[k]
                break
            worth[k, s] = factor * reward[k + 1]
    return worth


@pytest.mark.parametrize(
    "env", [probes.Endless(limit=5, ends=False), probes.Recall(5)], ids=["truncated", "terminated"]
)
def test_what_belongs_to_the_future_of_a_step(env: Any):
    _, u = unrolled(HCA(torso=NET, streams=3, length=20), env)
    reward = jax.random.normal(jax.random.key(5), u.step.reward.shape)
    value = jax.random.normal(jax.random.key(6), u.step.reward.shape)
    _, discount_t, lambda_t, weight = returns.segment(u, 0.9, 1.0)
    worth, future = found(reward[1:], discount_t, lambda_t, value[1:])
    for b in range(3):
        column = [np.asarray(x, np.float64)[:, b] for x in (reward, u.step.discount, u.step.last, value)]
        expected = literal(*column, 0.9)[1:]
        counts = np.asarray(weight[:, b]) > 0
        np.testing.assert_allclose(worth[:, counts, b], expected[:, counts], atol=1e-6)
        np.testing.assert_array_equal((np.asarray(future[:, counts, b]) > 0), expected[:, counts] != 0)
    target = returns.lambda_return(reward[1:], discount_t, lambda_t, value[1:])
    np.testing.assert_allclose((reward[1:] + worth.sum(0)) * weight, target * weight, atol=1e-5)


@pytest.mark.parametrize("by", ["states", "returns"])
@pytest.mark.parametrize("core", [None, GRU(8)], ids=["feedforward", "recurrent"])
def test_the_loss_by_loops(by: Any, core: GRU | None):
    agent = HCA(
        torso=NET, core=core, streams=3, length=20, by=by, gamma=0.9, truncation=2.0, units=8, reward=Scaled(2.0)
    )
    state, u = unrolled(agent, probes.Recall(5))
    net = state.net
    seen, _ = networks.unroll(net, u.step.obs, u.memory, u.step.first)
    lp, value, earned, f = (np.asarray(x, np.float64) for x in (seen.policy.log_probs, seen.value, seen.earned, seen.features))  # fmt: skip
    reward, discount, last = (np.asarray(x, np.float64) for x in (u.step.reward, u.step.discount, u.step.last))
    layers = [(np.asarray(m.weight, np.float64), np.asarray(m.bias, np.float64)) for m in (net.chosen, net.outcome, net.answer)]  # fmt: skip

    def log_h(t: int, b: int, outcome: np.ndarray) -> np.ndarray:
        (wc, bc), (wo, bo), (wa, ba) = layers
        x = lp[t, b] + wa @ np.tanh(wc @ f[t, b] + bc + wo @ outcome + bo) + ba
        return x - np.log(np.exp(x).sum())

    policy_loss, hindsight = [], []
    for b in range(3):
        worth = literal(2.0 * reward[:, b], discount[:, b], last[:, b], value[:, b], 0.9)
        for t in range(20):
            if last[t, b]:
                continue
            pi, a = np.exp(lp[t, b]), int(u.action[t, b])
            if by == "states":
                q = earned[t, b].copy()
                alive = True
                for k in range(t + 1, 21):
                    alive = alive and discount[k, b] > 0
                    if not alive:
                        break
                    log_now = log_h(t, b, f[k, b])
                    q += np.minimum(np.exp(log_now - lp[t, b]), 2.0) * worth[k, t]
                    hindsight.append(-log_now[a])
                    alive = not last[k, b]
                policy_loss.append(-pi @ q)
            else:
                z, k = 0.0, t
                z = 2.0 * reward[t + 1, b] + worth[:, t].sum()
                surprise = z - value[t, b]
                log_now = log_h(t, b, np.asarray(squash(jnp.float32([surprise]), 1e-3), np.float64))[a]
                hindsight.append(-log_now)
                policy_loss.append(-(1.0 - min(np.exp(lp[t, b, a] - log_now), 2.0)) * surprise * lp[t, b, a])
    _, (metrics, _) = agent.loss(net, state, u, jax.random.key(0))
    np.testing.assert_allclose(metrics["policy_loss"], np.mean(policy_loss), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(metrics["hindsight_loss"], np.mean(hindsight), rtol=1e-3)


def test_hindsight_begins_as_the_policy():
    agent = HCA(torso=NET, streams=3, length=20)
    run = fused.init(over(agent, 100), Vectorised(probes.Recall(), 3), jax.random.key(0))
    net, lp = run.state.net, jax.nn.log_softmax(jnp.array([0.3, -1.0]))
    x, y = jax.random.normal(jax.random.key(1), (2, 16))
    np.testing.assert_allclose(net.log_hindsight(lp, x, y), lp, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["states", "returns"])
def test_a_delayed_effect_is_credited_to_the_action_that_had_it(by: Any):
    """The best mean return is 1, under noise of deviation sqrt(3) times sigma."""
    agent = HCA(
        learning_rate=3e-3, torso=NET, units=16, streams=32, length=12, gamma=1.0, entropy_coefficient=0.2, by=by
    )
    run, _ = train(agent, DelayedEffect(1.0), 800)
    net, state = run.state.net, run.state
    first, sign = jnp.eye(6)[0], jnp.eye(6)[4]
    both = jnp.stack([first, sign + jnp.eye(6)[5], sign - jnp.eye(6)[5], jnp.eye(6)[2]])[None]
    seen, _ = networks.unroll(net, both, net.initial_memory(), jnp.zeros((1, 4), bool))
    lp, f = seen.policy.log_probs[0], seen.features[0]
    assert float(jnp.exp(lp[0, 1])) > 0.9
    if by == "states":
        even = jnp.log(jnp.full(2, 0.5))
        right, wrong, nothing = (jnp.exp(net.log_hindsight(even, f[0], f[i])) for i in (1, 2, 3))
        assert right[1] > 0.8 and wrong[0] > 0.8 and abs(float(nothing[1]) - 0.5) < 0.25
    assert state.counts.updates == 800


def test_the_environment_pays_what_the_first_action_decides():
    env = DelayedEffect(sigma=0.0)
    for action in (0, 1):
        state, step = env.reset(jax.random.key(0))
        rewards, views = [], []
        for t in range(5):
            state, step = env.step(state, jnp.int32(action if t == 0 else 1 - action), jax.random.key(t))
            rewards.append(float(step.reward))
            views.append(float(step.obs[-1]))
        assert rewards == [0, 0, 0, 0, 2 * action - 1] and bool(step.last) and step.discount == 0
        assert views[:4] == [0, 0, 0, 2 * action - 1], "the last place alone shows the sign"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "time"}, "hca: by is states or returns, not 'time'"),
        ({"truncation": 0.5}, "hca: truncation must be 1 or more, not 0.5"),
        ({"units": 0}, "hca: units must be positive, not 0"),
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(YozhError, match=message):
        HCA(**settings)


def test_a_delayed_effect_without_delay_is_refused():
    with pytest.raises(YozhError, match="DelayedEffect: length must be positive, not 0"):
        DelayedEffect(length=0)
