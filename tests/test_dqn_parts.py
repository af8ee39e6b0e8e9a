"""DQN's parts inside of DQN: they combine, each number counts, values come out true, and nonsense is refused."""

import dataclasses
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array, Key

from tests.contract import SMALL, STEPS, batched, learnt, train, vary
from tests.test_contract import returns, values
from tests.test_values import followed
from yozh import losses, presets, spaces
from yozh.agents import DQN, Linear
from yozh.agents.backups import Greedy, Munchausen, Peng, Retrace, Target
from yozh.agents.heads import Hyperbolic
from yozh.agents.optimisers import RMSProp
from yozh.agents.risks import CVaR, MeanVariance, Wang
from yozh.agents.sampling import Prioritised, Uniform
from yozh.agents.scales import Clipped, PopArt, Raw, Same, Scale, Scaled, Squashed
from yozh.agents.schedules import Counts, Multiplicative, over
from yozh.agents.values import C51, Expected, ImplicitQuantile, Outcomes, QuantileRegression
from yozh.core import Env, Spec, TimeStep, Unroll, YozhError, static
from yozh.environments import probes
from yozh.environments.batched import Vectorised
from yozh.environments.catch import Catch
from yozh.environments.classic import CartPole
from yozh.networks import GRU, MLP, forward
from yozh.networks.layers import Perceptron
from yozh.networks.noisy import Factorised, Independent
from yozh.runners import evaluation, fused
from yozh.settings import build, describe
from yozh.spaces import Box, Dict, Discrete, Space, Tuple

BETA = Linear(0.4, 1.0, 0.8)

TOGETHER: dict[str, dict[str, Any]] = {
    "c51": dict(values=C51(0.0, 4.0, 11, CVaR(0.5)), replay=Prioritised(0.6, BETA), reward=Clipped(0.5), noisy=Factorised(0.5),
                scale=Squashed(0.01), double=True, dueling=True, n_step=3),
    "quantiles": dict(values=QuantileRegression(8, 0.5, Wang(-0.5)), backup=Munchausen(0.3, 0.9, -0.1), scale=PopArt(0.1),
                      reward=Scaled(0.5), replay=Prioritised(0.6, BETA, "rank"), dueling=True, n_step=2),
    "implicit": dict(values=ImplicitQuantile(8, 16, 0.5, MeanVariance(0.5)), noisy=Independent(0.1), double=True),
    "retrace": dict(backup=Retrace(0.9), n_step=4, scale=PopArt(0.1), replay=Prioritised(0.6, BETA), double=True),
    "peng": dict(backup=Peng(0.7), n_step=4, scale=Squashed(0.01), descent=RMSProp()),
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n != "c51" else ()) for n in TOGETHER])
def test_no_dead_number_in_any_part(name: str):
    agent = over(dataclasses.replace(SMALL["dqn"].agent, **TOGETHER[name]), STEPS)
    env = batched(agent, CartPole())
    paths = [p for p, _ in jax.tree_util.tree_leaves_with_path(agent)]
    if agent.noisy is not None:
        paths = [p for p in paths if ".epsilon" not in jax.tree_util.keystr(p[:1])]
    paths = [p for p in paths if ".peak" not in jax.tree_util.keystr(p)]  # of several positions
    change = lambda x: x + 1 if jnp.issubdtype(x.dtype, jnp.integer) else x * 0.7 + 0.01  # noqa: E731
    stacked = jax.tree.map(lambda *x: jnp.stack(x), agent, *[vary(agent, p, change) for p in paths])

    @jax.jit
    @jax.vmap
    def run(agent: DQN) -> jax.Array:
        start = fused.init(agent, env, jax.random.key(0))
        done, _ = fused.advance(agent, env, start, jnp.int32(100))
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(done.state.net)])

    weights = np.asarray(run(stacked))
    assert np.isfinite(weights).all()
    dead = [jax.tree_util.keystr(p) for p, w in zip(paths, weights[1:], strict=True) if np.abs(w - weights[0]).max() < 1e-7]  # fmt: skip
    assert not dead, f"these change nothing: {dead}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"values": Expected()}, {"values": Expected(False)}),
        ({"values": C51(0.0, 5.0, 11)}, {"values": C51(0.0, 5.0, 12)}),
        ({"values": ImplicitQuantile(8)}, {"values": ImplicitQuantile(9)}),
        ({"values": ImplicitQuantile(8, 16)}, {"values": ImplicitQuantile(8, 17)}),
        ({"replay": Prioritised()}, {"replay": Prioritised(kind="rank")}),
        ({"noisy": Factorised(0.1)}, {"noisy": Independent(0.1)}),
        ({"backup": Greedy(), "n_step": 3}, {"backup": Peng(), "n_step": 3}),
    ],
)
def test_no_dead_structure_in_any_part(one: dict[str, Any], other: dict[str, Any]):
    two = [learnt(train(dataclasses.replace(SMALL["dqn"].agent, **x), CartPole(), 60)[0]) for x in (one, other)]
    assert two[0].shape != two[1].shape or np.abs(two[0] - two[1]).max() > 1e-7


ALONE: dict[str, dict[str, Any]] = {
    "c51": dict(values=C51(-0.5, 1.5, 21)),
    "quantiles": dict(values=QuantileRegression(16)),
    "implicit": dict(values=ImplicitQuantile(16, 16)),
    "prioritised": dict(replay=Prioritised()),
    "ranked": dict(replay=Prioritised(0.7, 1.0, "rank")),
    "retrace": dict(backup=Retrace(), n_step=3),
    "squashed": dict(scale=Squashed()),
    "popart": dict(scale=PopArt(0.01)),
    "all": dict(values=QuantileRegression(16), replay=Prioritised(), scale=PopArt(0.01), double=True, dueling=True, n_step=2),
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n not in ("c51", "all") else ()) for n in ALONE])  # fmt: skip
def test_values_come_out_true(name: str):
    """A reward after two steps, at gamma 0.9."""
    agent = dataclasses.replace(SMALL["dqn"].probe, learning_rate=3e-3, **ALONE[name])
    run, _ = train(agent, probes.Later(), 1500)
    np.testing.assert_allclose(values(agent, run, jnp.asarray([[0.0], [1.0]])), [0.9, 1.0], atol=0.1)


@pytest.mark.parametrize("double", [False, True])
def test_the_target_is_the_formulas(double: bool, unchecked: None, monkeypatch: pytest.MonkeyPatch):
    """`losses.q_target` and `double_q_target`, which are held against rlax, of the two networks."""
    monkeypatch.setattr(DQN, "descend", lambda self, state, batch, key: (state, batch))
    agent, spec = DQN(double=double, gamma=0.9, torso=MLP((8,)), reward=Scaled(2.0)), Spec(Box((3,)), Discrete(4))
    state = agent.init(jax.random.key(0), spec)
    state = eqx.tree_at(lambda s: s.target, state, agent.init(jax.random.key(1), spec).net)
    rng = np.random.default_rng(0)
    obs, reward, discount = (jnp.asarray(x, jnp.float32) for x in (rng.normal(size=(2, 30, 3)), rng.normal(size=(2, 30)), rng.integers(2, size=(2, 30))))  # fmt: skip
    no, one = jnp.zeros((2, 30), bool), jnp.zeros(30, jnp.int32)
    batch = Unroll(TimeStep(obs, reward, discount, no, no), jnp.zeros((2, 30), jnp.int32), {}, (), one, jnp.ones(30))
    _, (_, _, target) = agent.learn(state, batch, jax.random.key(2))
    online, fixed = (forward(net, obs[1], (), no[1])[0][..., 0] for net in (state.net, state.target))
    assert (jnp.argmax(online, -1) != jnp.argmax(fixed, -1)).any()
    given = 2.0 * reward[1], 0.9 * discount[1]
    expected = losses.double_q_target(*given, online, fixed) if double else losses.q_target(*given, fixed)
    np.testing.assert_allclose(target.outcomes.worth[:, 0], expected, rtol=1e-5)


@pytest.mark.slow
def test_popart_learns_where_rewards_are_a_thousand_times_larger():
    agent = dataclasses.replace(SMALL["dqn"].probe, learning_rate=3e-3, reward=Scaled(1000.0), scale=PopArt(0.01))
    run, _ = train(agent, probes.Later(), 1500)
    np.testing.assert_allclose(values(agent, run, jnp.asarray([[0.0], [1.0]])), [900.0, 1000.0], rtol=0.1)


class Copies(Env):
    """Catch, with its own rewards or with a thousand times these: which, is drawn when an episode opens, and seen as the task."""

    which: int | None = static(None)
    """Always this one, if it is given."""
    inner: Catch = Catch()

    @property
    def spec(self) -> Spec:
        return Spec(Dict.of({"board": self.inner.spec.observation, "task": Discrete(2)}), Discrete(3), horizon=9)

    def reset(self, key: Key[Array, ""]) -> tuple[Any, TimeStep]:
        draw, key = jax.random.split(key)
        which = jax.random.randint(draw, (), 0, 2) if self.which is None else jnp.int32(self.which)
        state, step = self.inner.reset(key)
        return (which, state), self.seen(which, step)

    def step(self, state: Any, action: Array, key: Key[Array, ""]) -> tuple[Any, TimeStep]:
        which, state = state
        state, step = self.inner.step(state, action, key)
        return (which, state), self.seen(which, step)

    def seen(self, which: Array, step: TimeStep) -> TimeStep:
        obs, reward = {"board": step.obs, "task": which}, step.reward * jnp.where(which == 1, 1000.0, 1.0)
        return eqx.tree_at(lambda s: (s.obs, s.reward), step, (obs, reward))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [Squashed(), PopArt(task="task")], ids=["squashed", "tasks"])
def test_two_copies_in_one_network_whose_rewards_differ_a_thousandfold(scale: Scale):
    """With one `PopArt()` for both the small copy is learnt by luck alone; what its updates weigh then has a test of its own."""
    agent = over(dataclasses.replace(presets.find("dqn", "Catch").agent, scale=scale), 90_000)
    run, _ = train(agent, Copies(), 90_000 // (agent.streams * agent.unroll))
    params = agent.policy(run.state)
    mean = [evaluation.evaluate(agent, params, Vectorised(Copies(i), 20), episodes=200, seed=1)["mean_return"] for i in (0, 1)]  # fmt: skip
    assert mean[0] >= 0.9 and mean[1] / 1000 >= 0.9


TASKS = Spec(Dict.of({"task": Discrete(2), "x": Box((3,))}), Discrete(4))


class Untold(eqx.Module):
    """A torso that does not see the task."""

    layers: Perceptron

    def __call__(self, obs: Any) -> Array:
        return self.layers(obs["x"])


def untold(space: Space, key: Key[Array, ""]) -> Untold:
    return Untold(Perceptron(3, (8,), key, activation="tanh", init="uniform"))


def of_tasks(task: Any, reward: Any, seed: int = 0) -> Unroll:
    """Windows of one transition, `[2, B]`, in which both tasks see the same; the task of each step is given, and each reward."""
    rng, half = np.random.default_rng(seed), len(reward) // 2
    x = jnp.asarray(np.tile(rng.normal(size=(2, half, 3)), (1, 2, 1)), jnp.float32)
    obs, no = {"task": jnp.asarray(task, jnp.int32), "x": x}, jnp.zeros((2, 2 * half), bool)
    earned = jnp.asarray(np.stack([np.zeros(2 * half), reward]), jnp.float32)
    action = jnp.tile(jnp.asarray(rng.integers(4, size=(2, half)), jnp.int32), (1, 2))
    return Unroll(TimeStep(obs, earned, jnp.ones((2, 2 * half)), no, no), action, {}, (), jnp.zeros(2 * half, jnp.int32), jnp.ones(2 * half))  # fmt: skip


def scaled(net: Any, mean: list[float], sigma: list[float]) -> Any:
    """With these statistics."""
    mu = jnp.array(mean)
    return eqx.tree_at(lambda n: (n.mean, n.square), net, (mu, jnp.square(jnp.array(sigma)) + jnp.square(mu)))


@pytest.mark.parametrize("double", [False, True])
def test_a_bootstrap_is_worth_what_it_is_on_the_scale_of_its_own_task(
    double: bool, unchecked: None, monkeypatch: pytest.MonkeyPatch
):
    """The tasks of a window's two steps differ, as they do where one episode ends and another begins."""
    monkeypatch.setattr(DQN, "descend", lambda self, state, batch, key: (state, batch))
    agent = DQN(scale=PopArt(0.5, "task"), gamma=0.9, torso=untold, double=double, values=Expected(False))
    rng = np.random.default_rng(1)
    task = rng.integers(2, size=(2, 30))
    batch, key = of_tasks(task, rng.normal(size=30) * 10.0 ** task[0]), jax.random.key(0)
    nets = []
    for seed, scales in ((0, ([2.0, -300.0], [0.5, 100.0])), (1, ([1.0, -200.0], [3.0, 40.0]))):
        net = scaled(agent.init(jax.random.key(seed), TASKS).net, *scales)
        drawn = lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape)  # noqa: E731
        nets.append(eqx.tree_at(lambda n: n.inner.inner.head, net, jax.tree.map(drawn, net.inner.head)))
    state = eqx.tree_at(lambda s: (s.net, s.target), agent.init(key, TASKS), tuple(nets))

    def said(net: Any, step: int) -> np.ndarray:
        """The numbers of the head of each step's task, `[B, actions]`."""
        x = np.asarray(jax.vmap(net.inner.inner.trunk.torso)(jax.tree.map(lambda x: x[step], batch.step.obs)))
        weight, bias = (np.asarray(getattr(net.inner.head.advantage, name)) for name in ("weight", "bias"))
        return np.stack([weight[i] @ row + bias[i] for i, row in zip(task[step], x, strict=True)])

    after, (window, windows, target) = agent.learn(state, batch, key)
    online, fixed = nets
    best, rows = said(online if double else fixed, 1).argmax(-1), np.arange(30)
    mean, sigma = (np.asarray(x)[task[1]] for x in fixed.scale())
    expected = np.asarray(batch.step.reward[1]) + 0.9 * (said(fixed, 1)[rows, best] * sigma + mean)
    np.testing.assert_allclose(target.outcomes.worth[:, 0], expected, rtol=1e-4)
    moments = followed(online.mean, online.square, task[0], expected, np.ones(30), 0.5)
    np.testing.assert_allclose((after.net.mean, after.net.square), moments, rtol=1e-4)
    mean, sigma = (np.asarray(x)[task[0]] for x in after.net.scale())
    wrong = said(after.net, 0)[rows, np.asarray(batch.action[0])] - (expected - mean) / sigma
    loss, _ = agent.loss(after.net, after, (window, windows, target), key)
    np.testing.assert_allclose(loss, np.square(wrong).mean() / 2, rtol=1e-3)


@pytest.mark.parametrize(
    ("task", "least", "most"), [("task", 0.999, 1.001), (None, 100.0, np.inf)], ids=["tasks", "one"]
)
def test_an_update_is_as_large_whatever_the_size_of_a_tasks_rewards(task: str | None, least: float, most: float, unchecked: None, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    """Both tasks see the same and say the same normalised numbers, and the second one's rewards are a thousand times the first's."""
    monkeypatch.setattr(DQN, "descend", lambda self, state, batch, key: (state, batch))
    agent, key = DQN(scale=PopArt(1.0, task), gamma=0.0, torso=untold), jax.random.key(0)
    reward, of = np.random.default_rng(0).normal(1.0, 2.0, 32), np.repeat([0, 1], 32)
    batch = of_tasks(np.stack([of, of]), np.concatenate([reward, 1000 * reward]))
    state, (windows, window, target) = agent.learn(agent.init(key, TASKS), batch, key)
    if task is not None:
        same = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), state.net.inner.head)
        state = eqx.tree_at(lambda s: s.net.inner.inner.head, state, same)

    def size(which: int) -> float:
        mine = Target(target.outcomes, jnp.asarray(of == which, jnp.float32))
        slope = jax.grad(lambda net: agent.loss(net, state, (windows, window, mine), key)[0])(state.net)
        return float(optax.tree.norm(slope))

    assert least <= size(1) / size(0) <= most


@pytest.mark.parametrize("task", ["task", None])
def test_statistics_stand_still_where_no_target_counts(task: str | None):
    scale = PopArt(0.5, task)
    net = DQN(scale=scale).network(TASKS, jax.random.key(0))
    target = Outcomes(jnp.full((4, 1), 7.0), jnp.ones((4, 1)))
    obs = {"task": jnp.zeros(4, jnp.int32)}
    after = scale.follow(net, target, jnp.zeros(4), obs)
    np.testing.assert_array_equal((after.mean, after.square), (net.mean, net.square))
    moved = scale.follow(net, target, jnp.asarray([1.0, 0.0, 0.0, 0.0]), obs)
    np.testing.assert_allclose((moved.mean.ravel()[0], moved.square.ravel()[0]), (3.5, 25.0))


EVERY: dict[str, dict[str, Any]] = {
    "quantiles": dict(values=QuantileRegression(8), dueling=True, noisy=True, n_step=3, backup=Munchausen()),
    "implicit": dict(values=ImplicitQuantile(8, 8), double=True, replay=Prioritised(), normalise_observations=True),
    "recurrent": dict(core=GRU(8), sequence=4, burn_in=2, backup=Retrace(0.9), n_step=2, double=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_tasks_go_with_other_parts(name: str):
    agent = dataclasses.replace(SMALL["dqn"].probe, scale=PopArt(0.1, "task"), **EVERY[name])
    assert describe(build(describe(agent))) == describe(agent)
    run, _ = train(agent, Copies(), 200)
    mean, sigma = run.state.net.scale()
    assert np.isfinite(learnt(run)).all() and int(run.state.counts.updates) > 100
    assert 100 < sigma[1] / sigma[0] < 10_000 and abs(mean[0]) < 10


@pytest.mark.parametrize(
    "space", [Discrete(3), Dict.of({"x": Discrete(2)}), Dict.of({"task": Box((2,)), "x": Discrete(2)}), Tuple((Discrete(2),))]
)  # fmt: skip
def test_a_task_that_no_observation_names_is_refused(space: Space):
    agent = DQN(scale=PopArt(task="task"))
    message = f"scale.task names a Discrete entry of a Dict observation, and 'task' is none of {spaces.describe(space)}"
    with pytest.raises(YozhError, match=f"^{re.escape(message)}$"):
        agent.init(jax.random.key(0), Spec(space, Discrete(2)))


@pytest.mark.slow
@pytest.mark.parametrize("name", TOGETHER)
def test_all_together_choose_well(name: str):
    agent = dataclasses.replace(SMALL["dqn"].probe, learning_rate=3e-3, **TOGETHER[name] | {"reward": Raw()})
    if name == "c51":
        agent = dataclasses.replace(agent, values=C51(-1.5, 1.5, 21))
    for probe in (probes.Matched(), probes.Forbidden()):
        assert returns(agent, probe, 500) >= 0.9


def test_what_is_told_and_what_is_learnt():
    """Returns are told as they come, whatever is learnt from; targets beyond the atoms are counted."""
    agent = dataclasses.replace(SMALL["dqn"].probe, reward=Scaled(3.0), values=C51(-1.0, 1.0, 5))
    _, metrics = train(agent, probes.Constant(), 100)
    assert float(metrics.tally.returns) == float(metrics.tally.episodes) > 0
    assert float(metrics.report["clipped_targets"]) > 0.9 and float(metrics.report["reward_max"]) == 3.0


def test_rainbow_is_a_set_of_arguments():
    agent = presets.rainbow()
    assert isinstance(agent, DQN) and agent.double and agent.dueling and agent.n_step == 3
    assert (
        isinstance(agent.replay, Prioritised) and isinstance(agent.values, C51) and isinstance(agent.noisy, Factorised)
    )
    assert describe(build(describe(agent))) == describe(agent)
    small = presets.rainbow(
        torso=MLP((16,)), capacity=400, warm_up=50, streams=2, learning_rate=1e-3, values=C51(0.0, 20.0, 21), target=agent.target
    )  # fmt: skip
    run, metrics = train(small, CartPole(), 100)
    assert int(run.state.counts.updates) > 20 and np.isfinite(float(metrics.report["loss"]))


@pytest.mark.parametrize("name", TOGETHER)
def test_parts_are_written_into_files_and_read_again(name: str):
    agent = DQN(**TOGETHER[name])
    assert describe(build(describe(agent))) == describe(agent)


def test_plain_parts_are_the_defaults():
    agent = DQN()
    assert [type(x) for x in (agent.values, agent.backup, agent.replay, agent.reward, agent.scale)] == [Expected, Greedy, Uniform, Raw, Same]  # fmt: skip
    assert jax.tree.leaves((agent.values, agent.backup, agent.replay, agent.reward, agent.scale, agent.noisy)) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(backup=Retrace()), r"Retrace traces expected returns over windows: it takes values=Expected\(\) and n_step > 1"),
        (dict(backup=Peng(), n_step=3, values=QuantileRegression()), "Peng traces expected returns"),
        (dict(backup=Munchausen(), double=True), "Munchausen has no best action for double to choose"),
        (dict(values=C51(), scale=PopArt()), "C51 learns chances of fixed returns, which PopArt cannot rescale"),
        (dict(n_step=50, capacity=400, warm_up=50), "n_step 50 does not fit into 50 stored steps of each stream"),
        (dict(length=51, update_every=1, capacity=400, warm_up=50), "an unroll of 8 x 51 steps does not fit into a replay of 400"),
        (dict(update_every=408, capacity=400, warm_up=50), "an unroll of 8 x 51 steps does not fit into a replay of 400"),
        (dict(values=C51(0.0, 0.9), reward=Clipped(1.0)), "support from 0 to 0.9 does not hold one reward of 1"),
        (dict(values=C51(-0.3, 0.3), reward=Clipped(1.0), scale=Squashed()), "does not hold one reward of 1"),
        (dict(values=Expected), r"values takes C51\(\), Expected\(\), ImplicitQuantile\(\), QuantileRegression\(\), not the class Expected"),
        (dict(replay="prioritised"), r"replay takes Prioritised\(\), Uniform\(\), not 'prioritised'"),
        (dict(core="gru"), r"core takes GRU\(\), LSTM\(\) or none, not 'gru'"),
        (dict(batch=32.5), "batch takes a whole number, not 32.5"),
        (dict(epsilon=2.0), r"epsilon lies in \[0, 1\], not 2"),
        (dict(epsilon=Linear(1.0, -0.1)), r"epsilon lies in \[0, 1\], not -0.1"),
        (dict(warm_up=-1), "warm_up lies between 0 and the store of 1000000, not at -1"),
        (dict(heads=Hyperbolic(), gamma=1.0), "gamma must be less than 1"),
    ],
)  # fmt: skip
def test_combinations_that_make_no_sense_are_refused(settings: dict[str, Any], message: str, unchecked: None):
    with pytest.raises(YozhError, match=f"^dqn: .*{message}"):
        DQN(**settings)


@pytest.mark.filterwarnings("ignore:A JAX array is being set as static")
@pytest.mark.parametrize(
    "settings",
    [
        dict(length=50, update_every=1, capacity=400, warm_up=50),
        dict(values=C51(-1.0, 0.0), reward=Clipped(1.0)),
        dict(values=C51(-0.5, 0.5), reward=Clipped(1.0), scale=Squashed()),
        dict(heads=Hyperbolic(), gamma=0.999),
        dict(batch=np.int64(32)),
    ],
)
def test_what_is_just_within_is_taken(settings: dict[str, Any], unchecked: None):
    DQN(**settings)


@pytest.mark.parametrize(("low", "high"), [(5, 10), (-10, -5), (-np.inf, 0), (0, np.inf)])
def test_a_support_that_cannot_hold_returns_is_refused(low: float, high: float):
    with pytest.raises(YozhError, match=r"values from .*: the support is finite, and holds 0"):
        C51(low, high)


def test_importance_weights():
    weight, counts = jnp.array([4.0, 1.0, 0.25]), Counts(jnp.int32(50), jnp.int32(0), jnp.int32(0))
    np.testing.assert_allclose(Prioritised(beta=0.5).weights(weight, counts), [1.0, 0.5, 0.25])
    np.testing.assert_allclose(Prioritised(beta=Linear(0.0, 1.0, total=100)).weights(weight, counts), [1.0, 0.5, 0.25])
    assert Uniform().weights(weight, counts) is weight


@pytest.mark.parametrize(
    ("field", "value"), [("alpha", 1.5), ("beta", 2.0), ("beta", -1.0), ("beta", Linear(0.4, 1.5))]
)
def test_a_share_of_priority_beyond_1_is_refused_with_the_part(field: str, value: Any):
    with pytest.raises(YozhError, match=rf"replay.{field} lies in \[0, 1\], not (1.5|2|-1)"):
        Prioritised(**{field: value})


def test_schedules_that_lead_nowhere_are_refused():
    for make, message in (
        (lambda: Linear(fraction=0.0), "fraction of a linear schedule must be positive, not 0"),
        (lambda: Multiplicative(factor=1.5), r"factor of a multiplicative schedule lies in \[0, 1\], not 1.5"),
        (lambda: DQN(epsilon=Multiplicative(1.0, 0.99, -0.5)), r"epsilon lies in \[0, 1\], not -0.5"),
        (lambda: DQN(epsilon=Linear), "a number or a schedule, such as .*, is wanted"),
    ):
        with pytest.raises(YozhError, match=message):
            make()
