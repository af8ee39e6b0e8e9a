"""Values at several discounts at once: what each learns, and what is chosen by."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract import SMALL, STEPS, batched, train, vary
from tests.test_contract import returns, values
from tests.test_values import window
from yozh.agents import DQN
from yozh.agents.backups import Greedy, Look, Munchausen, Peng, Retrace
from yozh.agents.heads import Horizons, Hyperbolic, Single
from yozh.agents.sampling import Prioritised
from yozh.agents.scales import PopArt, Squashed
from yozh.agents.schedules import over
from yozh.agents.values import C51, ImplicitQuantile, Outcomes, QuantileRegression
from yozh.core import Env, Spec, TimeStep, YozhError, restart, transition
from yozh.environments import probes
from yozh.environments.classic import CartPole
from yozh.networks import GRU
from yozh.runners import fused
from yozh.settings import build, describe
from yozh.spaces import Box, Discrete

PROBE = dataclasses.replace(SMALL["dqn"].probe, learning_rate=3e-3)


def thought(agent: DQN, run: fused.Run, obs: list[list[float]]) -> np.ndarray:
    """The best value by each answer, `[B, k]`."""
    n = len(obs)
    step = TimeStep(jnp.asarray(obs), jnp.zeros(n), jnp.ones(n), jnp.ones(n, bool), jnp.zeros(n, bool))
    return np.asarray(agent.look(run.state.net, run.state, None, step, None)[0].prefer.max(-1))


def test_each_answer_learns_at_its_own_discount():
    agent = dataclasses.replace(PROBE, heads=Horizons((0.5, 0.0)))
    run, _ = train(agent, probes.Later(), 1500)
    np.testing.assert_allclose(thought(agent, run, [[0.0], [1.0]]), [[0.9, 0.5, 0.0], [1.0, 1.0, 1.0]], atol=0.1)
    np.testing.assert_allclose(values(agent, run, jnp.asarray([[0.0], [1.0]])), [0.9, 1.0], atol=0.1)


@pytest.mark.parametrize(("k", "largest"), [(0.03, 0.999), (0.1, 0.99), (1.0, 0.95)])
def test_hyperbolic_discounts(k: float, largest: float):
    """The sum follows 1/(1 + k t) as far as the largest discount reaches."""
    heads, gamma = Hyperbolic(k, 20), jnp.float32(largest)
    gammas, mixture = np.asarray(heads.gammas(gamma)), np.asarray(heads.mixture(gamma))
    assert (np.diff(gammas) > 0).all() and (mixture > 0).all()
    np.testing.assert_allclose([gammas[-1], mixture.sum()], [largest, 1.0], rtol=1e-5)
    t = np.arange(60)
    np.testing.assert_allclose((mixture[:, None] * gammas[:, None] ** t).sum(0), 1 / (1 + k * t), atol=0.025)


def test_a_hyperbolic_value_comes_out_true():
    agent = dataclasses.replace(PROBE, heads=Hyperbolic(1.0, 8), gamma=0.95)
    run, _ = train(agent, probes.Later(), 1500)
    np.testing.assert_allclose(values(agent, run, jnp.asarray([[0.0], [1.0]])), [0.5, 1.0], atol=0.1)


class Tempting(Env):
    """1 after a wait of 0 or 12 steps (action 0), or 2 after 4 steps more; which wait it is is seen."""

    @property
    def spec(self) -> Spec:
        return Spec(Box((2,), -1.0, 1.0), Discrete(2))

    def reset(self, key: jax.Array) -> tuple[Any, TimeStep]:
        wait = 12 * jax.random.bernoulli(key).astype(jnp.int32)
        return (wait, jnp.int32(-1), jnp.float32(0)), restart(jnp.stack([wait.astype(jnp.float32) / 20, jnp.ones(())]))

    def step(self, state: Any, action: Any, key: jax.Array) -> tuple[Any, TimeStep]:
        wait, left, prize = state
        choosing = left < 0
        left = jnp.where(choosing, wait + 4 * action, left - 1)
        prize = jnp.where(choosing, jnp.where(action == 1, 2.0, 1.0), prize)
        over = left == 0
        obs = jnp.stack([left.astype(jnp.float32) / 20, 1.0 - prize])
        return (wait, left, prize), transition(obs, jnp.where(over, prize, 0.0), terminated=over)


def choices(agent: DQN) -> tuple[int, int]:
    """Without a wait, and with one."""
    run, _ = train(agent, Tempting(), 4000)
    step = TimeStep(jnp.array([[0.0, 1.0], [0.6, 1.0]]), jnp.zeros(2), jnp.ones(2), jnp.ones(2, bool), jnp.zeros(2, bool))  # fmt: skip
    q, _ = agent.forward(run.state, (), step)
    return tuple(int(a) for a in q.argmax(-1))


@pytest.mark.slow
def test_who_discounts_hyperbolically_changes_his_mind_and_no_other_does():
    """At k = 1/2: 1 against 2/3 at once, 1/7 against 2/9 after a wait. A constant discount ranks both alike."""
    agent = dataclasses.replace(PROBE, capacity=20_000)
    assert choices(dataclasses.replace(agent, heads=Hyperbolic(0.5, 12), gamma=0.97)) == (0, 1)
    assert choices(dataclasses.replace(agent, gamma=0.8)) == (0, 0)
    assert choices(dataclasses.replace(agent, gamma=0.97)) == (1, 1)


@pytest.mark.parametrize("backup", [Greedy(), Munchausen(0.3), Retrace(0.9), Peng(0.7)], ids=lambda b: type(b).__name__)
def test_targets_are_those_of_each_answer_alone(backup: Any):
    heads, u = Horizons((0.5, 0.2)), window(0)
    q = jnp.stack([u.step.obs, 2 * u.step.obs[..., ::-1], -u.step.obs], 2)  # [T+1, B, k, actions]
    look = lambda q: Look(q, Outcomes(q[..., None], jnp.ones_like(q)[..., None]))  # noqa: E731
    several = dataclasses.replace(u, step=dataclasses.replace(u.step, obs=look(q)))
    found = heads.targets(backup, lambda step: step.obs, several, jnp.float32(0.9))
    for i, gamma in enumerate((0.9, 0.5, 0.2)):
        one = dataclasses.replace(u, step=dataclasses.replace(u.step, obs=look(q[:, :, i])))
        alone = backup(lambda step: step.obs, one, jnp.float32(gamma))
        np.testing.assert_allclose(found.outcomes.worth[:, i], alone.outcomes.worth, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found.weight, alone.weight)


def test_actions_that_are_not_legal_stay_so_in_a_mixture():
    lowest = jnp.finfo(jnp.float32).min
    prefer = jnp.array([[[1.0, lowest, 3.0], [2.0, lowest, -3.0]]])
    found = Hyperbolic(0.1, 2).judge(prefer, jnp.float32(0.9))
    assert found[0, 1] == lowest and np.isfinite(found).all() and 1.0 < found[0, 0] < 2.0
    assert returns(dataclasses.replace(PROBE, heads=Hyperbolic(0.1, 4)), probes.Forbidden(), 300) >= 0.95


TOGETHER: dict[str, dict[str, Any]] = {
    "horizons": dict(heads=Horizons((0.5, 0.8)), values=C51(0.0, 20.0, 11), replay=Prioritised(), double=True, dueling=True, n_step=2),
    "hyperbolic": dict(heads=Hyperbolic(0.1, 3), backup=Munchausen(0.3, 0.9, -0.1), scale=Squashed(0.01), core=GRU(8), sequence=3),
    "quantiles": dict(heads=Horizons((0.9,)), values=QuantileRegression(4), noisy=True, core=GRU(8), sequence=2, burn_in=1),
    "retrace": dict(heads=Hyperbolic(0.2, 3), backup=Retrace(0.9), n_step=3),
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n != "hyperbolic" else ()) for n in TOGETHER])  # fmt: skip
def test_no_number_is_dead(name: str):
    agent = over(dataclasses.replace(SMALL["dqn"].agent, **TOGETHER[name]), STEPS)
    env = batched(agent, CartPole())
    paths = [p for p, _ in jax.tree_util.tree_leaves_with_path(agent)]
    unused = (".peak", ".beta") if agent.sequence is None else ()
    unused += (".epsilon",) if agent.noisy else ()
    paths = [p for p in paths if not any(x in jax.tree_util.keystr(p) for x in unused)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), agent, *[vary(agent, p, lambda x: x * 0.7 + 0.01 if x.dtype == jnp.float32 else x + 1) for p in paths])  # fmt: skip

    @jax.jit
    @jax.vmap
    def run(agent: DQN) -> jax.Array:
        done, _ = fused.advance(agent, env, fused.init(agent, env, jax.random.key(0)), jnp.int32(80))
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(done.state.net)])

    weights = np.asarray(run(stacked))
    assert np.isfinite(weights).all()
    dead = [jax.tree_util.keystr(p) for p, w in zip(paths, weights[1:], strict=True) if np.abs(w - weights[0]).max() < 1e-7]  # fmt: skip
    assert not dead, f"these change nothing: {dead}"


def test_they_are_written_into_files_and_read_again():
    for heads in (Horizons((0.1, 0.2)), Hyperbolic(0.3, 5), Single()):
        agent = DQN(heads=heads)
        assert describe(build(describe(agent))) == describe(agent)
    assert Horizons().count == 3 and Hyperbolic().count == 10 and jax.tree.leaves(DQN().heads) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Horizons(()), "heads.others must name a discount or more"),
        (lambda: Horizons((0.5, 1.5)), r"each of heads.others lies in \[0, 1\], not 1.5"),
        (lambda: Hyperbolic(0.0), "heads.k must be positive, not 0"),
        (lambda: Hyperbolic(0.1, 1), "heads.count must be 2 or more, not 1"),
        (lambda: DQN(heads=Horizons(), values=ImplicitQuantile()), "ImplicitQuantile has one answer, and Horizons several"),
        (lambda: DQN(heads=Hyperbolic(), scale=PopArt()), "PopArt keeps the scale of one answer, and Hyperbolic has several"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make: Any, message: str):
    with pytest.raises(YozhError, match=message):
        make()
