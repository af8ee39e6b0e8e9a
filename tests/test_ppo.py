"""PPO's switches beyond the contract: penalty, dual clip, clipped rewards, what does not go together."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import yozh
from yozh.agents import PPO
from yozh.agents.estimators import GAE, NStep
from yozh.agents.on_policy import Samples
from yozh.agents.penalties import Adaptive, Fixed
from yozh.agents.scales import Clipped
from yozh.agents.schedules import over
from yozh.core import YozhError
from yozh.environments.batched import Vectorised
from yozh.environments.classic import CartPole
from yozh.networks import Auto
from yozh.runners import fused
from yozh.runners.rollout import rollout

SMALL = dict(torso=Auto((8,)), streams=2, length=16, epochs=1, minibatches=1, normalise_advantage=False, value_coefficient=0.0)  # fmt: skip


def moment(agent: PPO) -> tuple[fused.Run, Samples, jax.Array]:
    """A run, what an unroll of it teaches (moved a little away from the policy that acted), and the new policy's log-chances
    `[1, T · B, actions]`."""
    agent, env = over(agent, 100), Vectorised(CartPole(), 2)
    run = fused.init(agent, env, jax.random.key(0))

    @jax.jit
    def go(state):
        _, unroll = rollout(agent, agent.policy(state), env, run.sim, 16, jnp.int32(0), jax.random.key(1))
        state, samples = agent.samples(state, unroll, None, policy=True)
        samples = dataclasses.replace(samples, advantage=samples.advantage - samples.advantage.mean())
        net = jax.tree.map(lambda x: x + 0.5 * jax.random.normal(jax.random.key(x.size), x.shape), state.net)
        state = dataclasses.replace(state, net=net)
        return state, samples, agent.look(net, samples, None)[0].log_probs, agent.loss(net, state, samples, None)

    state, samples, now, (loss, _) = go(run.state)
    return state, jax.tree.map(np.asarray, samples), np.asarray(now, np.float64)[0], float(loss)


def by_hand(samples: Samples, now: np.ndarray, state, *, clip: float | None, beta: float = 0.0, most: float | None = None) -> float:  # fmt: skip
    old, total = np.asarray(jax.nn.log_softmax(samples.policy.logits), np.float64)[0], []
    for i, a in enumerate(samples.action[0]):
        if samples.weight[0, i] == 0:
            continue
        ratio, advantage = np.exp(now[i, a] - old[i, a]), float(samples.advantage[0, i])
        worth = ratio * advantage
        if clip is not None:
            worth = min(worth, min(max(ratio, 1 - clip), 1 + clip) * advantage)
        if most is not None and advantage < 0:
            worth = max(worth, most * advantage)
        total.append(beta * sum(np.exp(o) * (o - n) for o, n in zip(old[i], now[i], strict=True)) - worth)
    return float(np.mean(total))


@pytest.mark.parametrize(
    ("settings", "hand"),
    [
        ({}, {"clip": 0.2}),
        ({"clip": None}, {"clip": None}),
        ({"clip": None, "penalty": 0.7}, {"clip": None, "beta": 0.7}),
        ({"clip": 0.1, "penalty": Adaptive(0.01, beta=3.0)}, {"clip": 0.1, "beta": 3.0}),
        ({"dual_clip": 1.3}, {"clip": 0.2, "most": 1.3}),
    ],
    ids=["clip", "neither", "penalty", "both", "dual"],
)
def test_the_loss_as_the_papers_print_it(settings: dict, hand: dict):
    state, samples, now, loss = moment(PPO(**SMALL, **settings))
    np.testing.assert_allclose(loss, by_hand(samples, now, state, **hand), rtol=2e-4, atol=1e-6)
    if "most" in hand:
        assert abs(by_hand(samples, now, state, clip=0.2) - loss) > 1e-3, (
            "no ratio was so large that the switch mattered"
        )


def test_beta_follows_the_divergence():
    rule, beta = Adaptive(0.01), jnp.float32(0.4)
    found = [float(rule.after(beta, jnp.float32(kl))) for kl in (0.0151, 0.0149, 0.0067, 0.0066)]
    np.testing.assert_allclose(found, [0.8, 0.4, 0.4, 0.2], rtol=1e-6)
    assert rule.after(jnp.float32(1e6), jnp.float32(1.0)) == 1e6 and rule.after(jnp.float32(1e-6), jnp.float32(0.0)) > 0
    assert Fixed(0.3).after(jnp.float32(0.3), jnp.float32(9.0)) == jnp.float32(0.3)


def test_beta_is_kept_from_turn_to_turn_and_holds_the_policy():
    """Where the target is never reached β is halved each turn, where it is always passed it is doubled."""
    env, turns = Vectorised(CartPole(), 2), 6
    settings = SMALL | dict(epochs=4, learning_rate=1e-2, clip=None, normalise_advantage=True)

    @jax.jit
    def train(target: jax.Array) -> fused.Run:
        agent = over(PPO(**settings, penalty=Adaptive(target, beta=2.0)), 1000)
        run = fused.init(agent, env, jax.random.key(0))
        return jax.lax.fori_loop(0, turns, lambda _, run: fused.turn(agent, env, run)[0], run)

    assert train(jnp.float32(10.0)).state.penalty == 2.0 * 0.5**turns
    assert train(jnp.float32(1e-9)).state.penalty == 2.0 * 2.0**turns


def test_without_a_penalty_nothing_is_kept():
    agent = over(PPO(**SMALL), 100)
    env = Vectorised(CartPole(), 2)
    state = jax.eval_shape(lambda: fused.init(agent, env, jax.random.key(0)).state)
    assert state.penalty is None and len(jax.tree.leaves(state.counts)) == 3


def test_the_first_ratio_is_one():
    agent = over(PPO(**SMALL), 100)
    env = Vectorised(CartPole(), 2)
    run = fused.init(agent, env, jax.random.key(0))
    _, metrics = jax.jit(fused.turn)(agent, env, run)
    assert metrics.report["clip_fraction"] == 0 and abs(float(metrics.report["kl"])) < 1e-10


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_updates_end_before_the_one_that_finds_the_divergence_too_large(stop: int):
    settings = SMALL | dict(epochs=3, minibatches=2, learning_rate=3e-2)
    agent, env = over(PPO(**settings), 100), Vectorised(CartPole(), 2)
    state = fused.init(agent, env, jax.random.key(0))
    _, unroll = rollout(agent, agent.policy(state.state), env, state.sim, 16, jnp.int32(0), jax.random.key(1))
    state, samples = agent.samples(state.state, unroll, None)

    def update(state, minibatch):
        new, report = agent.descend(state, minibatch, None)
        return new, (report.metrics["kl"], state.net)

    key = jax.random.key(2)
    _, (kl, before) = samples.passes(update, state, 3, 2, key)
    kl = np.asarray(kl).ravel()
    target = kl[stop] / 1.5 * 0.999
    first = int(np.argmax(kl > 1.5 * target))
    done, _ = dataclasses.replace(agent, target_kl=target).learn(state, unroll, key)
    assert int(done.counts.updates) == first > 0
    expected = jax.tree.map(lambda x: x.reshape(6, *x.shape[2:])[first], before)
    for one, two in zip(jax.tree.leaves(done.net), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_the_policy_stays_near_the_one_that_acted():
    """While CartPole is learnt: the approximate KL divergence, a mean over the updates of five unrolls."""
    agent = over(PPO(torso=Auto((16,)), length=64, learning_rate=1e-3), 20_000)
    runner = fused.Fused(agent, Vectorised(CartPole(), 8))
    run, kl = runner.init(jax.random.key(0)), []
    for _ in range(8):
        run, metrics = runner.advance(run, 5)
        kl.append(float(metrics.report["kl"]))
    assert min(kl) > 1e-4 and max(kl) < 0.02
    assert float(metrics.tally.returns) > 100 * int(metrics.tally.episodes) > 0


def test_rewards_are_clipped_before_anything_is_made_of_them():
    agent = over(PPO(**SMALL | dict(scale_rewards=True), reward=Clipped(0.25), estimator=GAE(1.0), gamma=1.0), 100)
    env = Vectorised(CartPole(), 2)
    run = fused.init(agent, env, jax.random.key(0))
    _, unroll = jax.jit(lambda s: rollout(agent, agent.policy(s), env, run.sim, 5, jnp.int32(0), jax.random.key(1)))(run.state)  # fmt: skip
    assert unroll.step.reward[1:].min() == 1.0, "the environment pays 1"
    np.testing.assert_allclose(unroll.extras["discounted"][:, 0], 0.25 * np.arange(6))
    state, reward = agent.rewards(run.state, unroll)
    deviation = np.std(0.25 * np.arange(1, 6))
    np.testing.assert_allclose(reward[1:], 0.25 / deviation, rtol=1e-4)
    np.testing.assert_array_equal(agent.scaled(state, unroll.step.reward), reward)


def test_what_does_not_go_together_is_refused():
    for settings, message in (
        ({"clip": None, "dual_clip": 3.0}, "ppo: dual_clip goes with a clip, and clip is none"),
        ({"clip": None, "clip_value": True}, "ppo: clip_value goes with a clip, and clip is none"),
        ({"dual_clip": 1.0}, "ppo: dual_clip must be above 1, not 1.0"),
        ({"penalty": -1.0}, "penalty.beta must not be negative, and is -1"),
        ({"clip": 0.0}, "ppo: clip must be positive, not 0"),
        ({"clip": jnp.array([0.2, -0.2])}, r"ppo: clip must be positive, not \[ 0.2 -0.2\]"),
        ({"target_kl": -0.01}, "ppo: target_kl must be positive, not -0.01"),
        ({"estimator": NStep(500)}, "ppo: unrolls of 128 steps are shorter than n = 500"),
    ):
        with pytest.raises(YozhError, match=message):
            PPO(**settings)
    with pytest.raises(YozhError, match=r"penalty.target must be positive, not 0"):
        Adaptive(0.0)


def test_the_details_are_where_the_page_says():
    """Each line that the table of 37 details quotes is in the file that it names."""
    root = Path(yozh.__file__).parent
    page = (root.parent / "docs" / "algorithms" / "ppo.md").read_text()
    rows = [line for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row.split("|")[1]) for row in rows] == [*range(1, 38)]
    quoted = [found for row in rows if (found := re.search(r"\| `([\w/]+\.py)`: `(.+)` \|$", row))]
    assert len(quoted) == 37 - 6, "all but what EnvPool does"
    for found in quoted:
        assert found[2] in (root / found[1]).read_text(), found[0]
