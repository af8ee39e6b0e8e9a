"""DQN with bootstrapped heads: one is followed for an episode, each learns its own share, and together they explore deeply."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.contract import SMALL, STEPS, batched, learnt, train, vary
from tests.test_contract import returns
from yozh.agents import DQN
from yozh.agents.heads import Bootstrapped
from yozh.agents.sampling import Prioritised
from yozh.agents.scales import PopArt
from yozh.agents.schedules import over
from yozh.agents.targets import Soft
from yozh.agents.values import C51, ImplicitQuantile
from yozh.app import export
from yozh.core import Spec, TimeStep, YozhError
from yozh.environments import make, probes
from yozh.environments.batched import Vectorised
from yozh.environments.classic import CartPole
from yozh.environments.deep_sea import DeepSea
from yozh.environments.host import AsHost
from yozh.networks import GRU, Auto
from yozh.runners import evaluation, fused
from yozh.runners.hosted import Hosted
from yozh.runners.policy import Policy
from yozh.runners.rollout import rollout
from yozh.settings import build, describe
from yozh.spaces import Box, Discrete

SMALLEST = dataclasses.replace(SMALL["dqn"].agent, heads=Bootstrapped(3, 0.5))


def test_deep_sea():
    env = DeepSea(6, seed=3)
    to_the_right, chance = np.asarray(env.right), jax.jit(env.step)
    assert 0 < to_the_right.mean() < 1

    def dive(right: list[bool]) -> tuple[float, list[int]]:
        state, step = env.reset(jax.random.key(0))
        total, seen = 0.0, []
        for t, go in enumerate(right):
            assert not step.last and float(step.obs.sum()) == 1.0
            seen.append(int(step.obs.argmax()))
            row, column = divmod(seen[-1], 6)
            assert row == t
            state, step = chance(state, jnp.int32(to_the_right[row, column] == go), jax.random.key(t))
            total += float(step.reward)
        assert step.last and float(step.discount) == 0.0 and float(step.obs.sum()) == 0.0
        return total, [s % 6 for s in seen]

    total, columns = dive([True] * 6)
    assert total == pytest.approx(0.99) and columns == [0, 1, 2, 3, 4, 5]
    total, columns = dive([True, True, False, True, True, True])
    assert total == pytest.approx(-0.05 / 6) and columns == [0, 1, 2, 1, 2, 3]
    assert dive([False] * 6) == (0.0, [0] * 6)
    assert make("DeepSea", 2, size=4).spec.observation.shape == (4, 4)


def test_a_head_is_drawn_for_an_episode_and_followed():
    agent, n = over(dataclasses.replace(SMALLEST, heads=Bootstrapped(5)), STEPS), 4000
    params = agent.policy(agent.init(jax.random.key(0), Spec(Box((3,)), Discrete(4))))
    memory = agent.initial_memory(params, n)
    first, heads = jnp.ones(n, bool), []
    for t in range(3):
        obs = jax.random.normal(jax.random.key(t), (n, 3))
        step = TimeStep(obs, jnp.zeros(n), jnp.ones(n), first, jnp.zeros(n, bool))
        look, _ = agent.look(params.net, params, memory, step, None)
        action, extras, memory = agent.act(params, memory, step, jax.random.key(10 + t))
        head = np.asarray(memory[1])
        followed = np.asarray(look.prefer)[np.arange(n), head]
        assert (action == followed.argmax(-1)).all() and extras["mask"].shape == (n, 5)
        judged, _, _ = agent.act(params, memory, step, jax.random.key(0), explore=False)
        np.testing.assert_array_equal(judged, np.asarray(look.prefer).mean(1).argmax(-1))
        heads.append(head)
        first = jnp.arange(n) % 2 == 0
        if t == 0:
            first = jnp.zeros(n, bool)
    assert (heads[0] == heads[1]).all() and (heads[1][1::2] == heads[2][1::2]).all()
    fresh = heads[2][::2]
    assert 0.1 < (fresh == heads[1][::2]).mean() < 0.3, "drawn anew, whatever it was"
    assert stats.chisquare(np.bincount(heads[0], minlength=5)).pvalue > 0.01


def test_heads_learn_only_from_their_share():
    """Of a batch whose windows are all kept from head 1; and what is fixed stays what it was."""
    agent = over(dataclasses.replace(SMALLEST, n_step=2, double=True), STEPS)
    env = batched(agent, CartPole())
    run, _ = train(SMALLEST, CartPole(), 60)
    _, unroll = rollout(agent, agent.policy(run.state), env, fused.init(agent, env, jax.random.key(0)).sim, 2, jnp.int32(0), jax.random.key(1))  # fmt: skip
    batch = dataclasses.replace(unroll, memory=(), extras={"mask": unroll.extras["mask"].at[..., :].set(jnp.array([True, False, True]))})  # fmt: skip

    state = agent.init(jax.random.key(0), env.spec)
    after, report = agent.learn(state, batch, jax.random.key(0))
    moved = jnp.abs(after.net.inner.head.advantage.weight - state.net.inner.head.advantage.weight).reshape(2, 3, -1)
    assert (moved[:, 1] == 0).all() and moved[:, 0].max() > 0 and moved[:, 2].max() > 0
    assert report.finite
    first = agent.init(jax.random.split(jax.random.key(0), 3)[1], env.spec).net.fixed
    for now, then in zip(jax.tree.leaves(run.state.net.fixed), jax.tree.leaves(first), strict=True):
        np.testing.assert_allclose(now, then, rtol=0, atol=1e-6)  # LAPACK rounds by where arrays lie
    assert np.abs(jax.tree.leaves(first)[0]).max() > 0
    share = np.asarray(unroll.extras["mask"])
    assert share.dtype == bool


def test_masks_come_as_often_as_they_should():
    agent, n = over(dataclasses.replace(SMALLEST, heads=Bootstrapped(4, 0.3)), STEPS), 5000
    params = agent.policy(agent.init(jax.random.key(0), Spec(Box((3,)), Discrete(4))))
    step = TimeStep(jnp.zeros((n, 3)), jnp.zeros(n), jnp.ones(n), jnp.ones(n, bool), jnp.zeros(n, bool))
    _, extras, _ = agent.act(params, agent.initial_memory(params, n), step, jax.random.key(0))
    mask = np.asarray(extras["mask"], float)
    np.testing.assert_allclose(mask.mean(0), 0.3, atol=0.03)
    assert np.abs(np.corrcoef(mask.T) - np.eye(4)).max() < 0.06


def test_prior():
    """It is added to what heads say, in proportion; without it they say what the network itself does."""
    spec = Spec(Box((3,)), Discrete(4))
    step = TimeStep(jax.random.normal(jax.random.key(1), (6, 3)), jnp.zeros(6), jnp.ones(6), jnp.ones(6, bool), jnp.zeros(6, bool))  # fmt: skip
    said = []
    for prior in (0.0, 1.0, 2.0):
        agent = dataclasses.replace(SMALLEST, heads=Bootstrapped(3, prior=prior))
        state = agent.init(jax.random.key(0), spec)
        said.append(agent.look(state.net, state, None, step, None)[0].prefer)
    np.testing.assert_allclose(said[2] - said[0], 2 * (said[1] - said[0]), atol=1e-5)
    apart = np.asarray(said[1] - said[0])
    assert np.abs(apart).max() > 0.1 and np.abs(apart[:, 0] - apart[:, 1]).max() > 0.05, "each head has its own"


def test_hosted_equals_fused():
    agent = over(dataclasses.replace(SMALLEST, core=GRU(8), sequence=3, burn_in=1), STEPS)
    env, key = batched(agent, CartPole()), jax.random.key(5)
    one, two = fused.Fused(agent, env), Hosted(agent, AsHost(env, jax.random.split(key, 3)[2]))
    (a, left), (b, right) = (r.advance(r.init(key), 20) for r in (one, two))
    assert int(left.updates) == int(right.updates) > 5 and (learnt(a) == learnt(b)).all()


@pytest.mark.parametrize("settings", [{}, pytest.param({"values": C51(-1.5, 1.5, 21)}, marks=pytest.mark.slow), pytest.param({"core": GRU(16), "sequence": 4}, marks=pytest.mark.slow)])  # fmt: skip
def test_probes_are_learnt(settings: dict[str, Any]):
    agent = dataclasses.replace(SMALL["dqn"].probe, heads=Bootstrapped(5, 0.7), **settings)
    for probe in (probes.Recall(),) if "core" in settings else (probes.Matched(), probes.Forbidden()):
        assert returns(agent, probe, 800) >= 0.9


@pytest.mark.slow
def test_no_number_is_dead():
    agent = over(dataclasses.replace(SMALLEST, replay=Prioritised(0.6, 0.5), n_step=2, double=True), STEPS)
    env = batched(agent, CartPole())
    unused = (".epsilon", ".peak")
    paths = [p for p, _ in jax.tree_util.tree_leaves_with_path(agent)]
    paths = [p for p in paths if not any(jax.tree_util.keystr(p).startswith(x) or ".peak" in jax.tree_util.keystr(p) for x in unused)]  # fmt: skip
    stacked = jax.tree.map(lambda *x: jnp.stack(x), agent, *[vary(agent, p, lambda x: x * 0.7 + 0.01 if x.dtype == jnp.float32 else x + 1) for p in paths])  # fmt: skip
    run = jax.jit(jax.vmap(lambda a: fused.advance(a, env, fused.init(a, env, jax.random.key(0)), jnp.int32(80))[0].state.net.inner.head))  # fmt: skip
    weights = np.stack([np.asarray(x).reshape(len(paths) + 1, -1)[:, :6] for x in jax.tree.leaves(run(stacked))], -1)
    dead = [jax.tree_util.keystr(p) for p, w in zip(paths, weights[1:], strict=True) if np.abs(w - weights[0]).max() < 1e-7]  # fmt: skip
    assert np.isfinite(weights).all() and not dead, f"these change nothing: {dead}"


def test_a_policy_is_the_mean_of_its_heads_and_has_nothing_to_remember(tmp_path: Path, unchecked: None):
    pytest.importorskip("onnxruntime")
    agent, spec = DQN(heads=Bootstrapped(4)), Spec(Box((2,)), Discrete(3), legal=True)
    params = agent.policy(agent.init(jax.random.key(1), spec))
    done = export.export(Policy(agent, params, spec), to="onnx", out=tmp_path / "policy")
    assert done.inputs == ("obs", "legal") and done.outputs == ("action", "q") and done.error <= export.TOLERANCE


DIVER = DQN(learning_rate=1e-3, torso=Auto((50,), "relu", "uniform"), streams=1, batch=64, capacity=100_000, update_every=1,
            target=Soft(0.05), epsilon=0.1)  # fmt: skip


def dives(agent: DQN, size: int, episodes: int, seed: int) -> float:
    """What the trained policy earns."""
    env = Vectorised(DeepSea(size), 1)
    run = fused.Fused(agent, env).init(jax.random.key(seed))
    run, _ = fused._advance(agent, env, run, jnp.int32(episodes * (size + 1)))
    return evaluation.evaluate(agent, agent.policy(run.state), env, episodes=1, seed=1)["mean_return"]


def test_the_bottom_of_the_sea():
    assert dives(dataclasses.replace(DIVER, heads=Bootstrapped()), 8, 300, seed=0) == pytest.approx(0.99)


@pytest.mark.slow
def test_heads_find_the_bottom_of_the_sea_and_random_actions_do_not():
    """14 rows in 700 episodes, of which 16,384 would be needed to find it by chance."""
    heads = dataclasses.replace(DIVER, heads=Bootstrapped())
    assert [dives(heads, 14, 700, seed) for seed in range(5)] == pytest.approx([0.99] * 5)
    assert [dives(DIVER, 14, 700, seed) for seed in range(5)] == pytest.approx([0.0] * 5, abs=0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bootstrapped(1), "heads.count must be 2 or more, not 1"),
        (lambda: Bootstrapped(chance=0.0), r"heads.chance lies in \(0, 1\], not 0"),
        (lambda: Bootstrapped(prior=-1.0), "heads.prior must not be negative, and is -1"),
        (lambda: DQN(heads=Bootstrapped(), values=ImplicitQuantile()), "ImplicitQuantile has one answer, and Bootstrapped several"),
        (lambda: DQN(heads=Bootstrapped(), scale=PopArt()), "PopArt keeps the scale of one answer, and Bootstrapped has several"),
        (lambda: DeepSea(1), "DeepSea: size must be 2 or more, not 1"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make: Any, message: str):
    with pytest.raises(YozhError, match=message):
        make()


def test_it_is_written_into_files_and_read_again():
    agent = DQN(heads=Bootstrapped(4, 0.5, 2.0))
    assert describe(build(describe(agent))) == describe(agent)
