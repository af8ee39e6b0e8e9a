"""DQN with a memory: what is stored, what is rebuilt, what is learnt from, and that it remembers."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract import SMALL, STEPS, batched, learnt, train, vary
from tests.test_checkpoint import imaged
from tests.test_contract import returns
from tests.test_prioritised import drawn, filled
from tests.test_stores import B
from yozh import networks
from yozh.agents import DQN, Linear
from yozh.agents.backups import Greedy, Look, Munchausen, Peng, Retrace, Target
from yozh.agents.base import State
from yozh.agents.sampling import Prioritised, Uniform
from yozh.agents.scales import PopArt, Squashed
from yozh.agents.schedules import over
from yozh.agents.values import C51, Expected, ImplicitQuantile, Outcomes, QuantileRegression
from yozh.app import export
from yozh.core import Spec, TimeStep, Unroll, YozhError
from yozh.environments import probes
from yozh.environments.classic import CartPole
from yozh.environments.host import AsHost
from yozh.networks import GRU, LSTM
from yozh.networks.noisy import Factorised
from yozh.runners import fused, memory
from yozh.runners.hosted import Hosted
from yozh.runners.policy import Policy, load
from yozh.runners.rollout import rollout
from yozh.settings import build, describe
from yozh.spaces import Box, Discrete
from yozh.stores import PrioritisedReplay

SPEC = Spec(Box((2,)), Discrete(3))
SMALLEST = dataclasses.replace(SMALL["dqn"].agent, core=GRU(8), sequence=3, burn_in=2, learning_rate=Linear(1e-2, 0.0, total=STEPS))  # fmt: skip


def states(agent: DQN, spec: Spec = SPEC) -> State:
    """A state whose target network is not its network."""
    state = agent.init(jax.random.key(0), spec)
    other = agent.init(jax.random.key(1), spec).target
    return eqx.tree_at(lambda s: s.target, state, other)


def sequences(agent: DQN, seed: int = 0, batch: int = 6) -> Unroll:
    """Windows of replay across episodes' ends, terminated or cut."""
    rng, n = np.random.default_rng(seed), agent.window + 1
    first, last = np.zeros((2, n, batch), bool)
    for t in range(n):
        first[t] = last[t - 1] if t else rng.random(batch) < 0.2
        last[t] = ~first[t] & (rng.random(batch) < 0.3)
    discount = np.where(last & (rng.random((n, batch)) < 0.5), 0.0, 1.0)
    reward = np.where(first, 0.0, rng.normal(size=(n, batch)))
    remembered = rng.normal(size=(n, batch, 8)) * 0.5
    obs, reward, discount, remembered = (jnp.asarray(x, jnp.float32) for x in (rng.normal(size=(n, batch, 2)), reward, discount, remembered))  # fmt: skip
    step = TimeStep(obs, reward, discount, jnp.asarray(first), jnp.asarray(last))
    action = jnp.asarray(rng.integers(3, size=(n, batch)), jnp.int32)
    weight = jnp.asarray(rng.random(batch) + 0.5, jnp.float32)
    return Unroll(step, action, {"memory": remembered}, (), jnp.zeros(batch, jnp.int32), weight)


def step_by_step(agent: DQN, net: Any, batch: Unroll) -> np.ndarray:
    """Q of every step `[T, B, actions]`, each network call by itself, the memory carried by hand."""
    said = []
    for b in range(batch.action.shape[1]):
        m, row = batch.extras["memory"][0, b], []
        for t in range(len(batch.action)):
            m = jnp.where(batch.step.first[t, b], jnp.zeros_like(m), m)
            answer, m = net(batch.step.obs[t, b], m)
            row.append(agent.outcomes(net, answer, batch.step.obs[t, b]).mean())
        said.append(row)
    return np.moveaxis(np.asarray(said, np.float64), 0, 1)


def huber(x: float) -> float:
    return 0.5 * min(abs(x), 1.0) ** 2 + max(abs(x) - 1.0, 0.0)


@pytest.mark.parametrize("n", [1, 3])
def test_targets_and_priorities_by_hand(n: int):
    """A literal double loop over windows and their positions, with double Q-learning, on a squashed scale."""
    plain = dict(gamma=0.9, normalise_observations=False, n_step=n, double=True, scale=Squashed(0.01), replay=Prioritised(beta=1.0))  # fmt: skip
    agent = dataclasses.replace(SMALLEST, **plain)
    state, learn = states(agent), jax.jit(DQN.learn)
    h = lambda x: np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + 0.01 * x  # noqa: E731
    dead = 0
    for seed in range(5):
        batch = sequences(agent, seed)
        _, report = learn(agent, state, batch, jax.random.key(0))
        online, fixed = (step_by_step(agent, net, batch) for net in (state.net, state.target))
        reward, discount, last, action = (np.asarray(x) for x in (batch.step.reward, batch.step.discount, batch.step.last, batch.action))  # fmt: skip
        importance = np.asarray(batch.weight) / np.max(batch.weight)
        total, count = 0.0, 0
        for b in range(action.shape[1]):
            errors = []
            for t in range(agent.burn_in, agent.burn_in + 3):
                if last[t, b]:
                    dead += 1
                    continue
                value, reach, end = 0.0, 1.0, t
                while end < t + n and not (end > t and last[end, b]):
                    end += 1
                    value += reach * reward[end, b]
                    reach *= 0.9 * discount[end, b]
                value += reach * fixed[end, b, online[end, b].argmax()]
                errors.append(h(value) - h(online[t, b, action[t, b]]))
                total += importance[b] * huber(errors[-1])
            count += len(errors)
            expected = 0.9 * np.max(np.abs(errors)) + 0.1 * np.mean(np.abs(errors))
            np.testing.assert_allclose(report.priority[b], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(report.metrics["loss"], total / count, rtol=1e-3)
    assert dead > 5


@pytest.mark.parametrize("backup", [Greedy(), Munchausen(0.3), Retrace(0.9), Peng(0.7)], ids=lambda b: type(b).__name__)
def test_every_backup_sees_the_windows_of_a_sequence(backup: Any):
    """Each position's target is what the backup makes of its window alone, with what is thought of its steps."""
    agent = dataclasses.replace(SMALLEST, backup=backup, n_step=3, normalise_observations=False)
    state, batch = states(agent), sequences(agent)
    found: list[Target] = []

    class Spying(type(backup)):
        def __call__(self, look: Any, window: Unroll, gamma: Any) -> Target:
            found.append(type(backup).__call__(backup, look, window, gamma))
            return found[-1]

    dataclasses.replace(agent, backup=Spying()).learn(state, batch, jax.random.key(0))
    q = jnp.asarray(step_by_step(agent, state.target, batch), jnp.float32)
    looks = Look(q, Outcomes(q[..., None], jnp.ones_like(q)[..., None]))
    seen = eqx.tree_at(lambda u: u.step.obs, batch, looks)
    for p in range(3):
        for b in range(6):
            cut = functools.partial(lambda x, t, b: x[t : t + 4, b : b + 1], t=2 + p, b=b)
            window = Unroll(*jax.tree.map(cut, (seen.step, seen.action)), {}, (), batch.version[:1], batch.weight[:1])
            alone = backup(lambda step: step.obs, window, agent.gamma)
            here = found[0].outcomes, alone.outcomes
            np.testing.assert_allclose(here[0].worth[p * 6 + b], here[1].worth[0], rtol=1e-4, atol=1e-5)
            assert float(found[0].weight[p * 6 + b]) == float(alone.weight[0])


@pytest.mark.parametrize(("sequence", "burn_in"), [(2, 0), (1, 1)])
def test_gradients_flow_through_a_sequence_and_not_through_the_burn_in(sequence: int, burn_in: int):
    """The second of two steps is learnt from. The first one's part in its memory counts if the two are a sequence."""
    agent = dataclasses.replace(SMALLEST, sequence=sequence, burn_in=burn_in, normalise_observations=False)
    state, batch = states(agent), sequences(agent)
    no = jnp.zeros_like(batch.step.first)
    batch = eqx.tree_at(lambda u: (u.step.first, u.step.last), batch, (no, no))
    worth, action = jnp.full((6 * sequence, 1), 0.7), batch.action[:sequence].reshape(-1)
    weight = jnp.concatenate([jnp.zeros(6 * (sequence - 1)), jnp.ones(6)])
    action = jnp.concatenate([action[: 6 * (sequence - 1)], batch.action[1]])
    steps = jax.tree.map(lambda x: jnp.zeros((2, 6 * sequence, *x.shape[2:]), x.dtype), batch.step)
    window = Unroll(steps, jnp.stack([action, action]), {}, (), jnp.zeros(6 * sequence, jnp.int32), jnp.ones(6 * sequence))  # fmt: skip
    target = Target(Outcomes(worth, jnp.ones_like(worth)), weight)
    gradient, _ = jax.grad(agent.loss, has_aux=True)(state.net, state, (batch, window, target), jax.random.key(0))

    def by_hand(net: Any) -> jax.Array:
        def one(obs: jax.Array, m: jax.Array, action: jax.Array) -> jax.Array:
            _, m = net(obs[0], m)
            answer, _ = net(obs[1], m if sequence == 2 else jax.lax.stop_gradient(m))
            return Expected().lesson(answer[action][None], (), Outcomes(worth[:1], jnp.ones((1, 1)))).loss[0]

        return jax.vmap(one, (1, 0, 0))(batch.step.obs, batch.extras["memory"][0], batch.action[1]).mean()

    expected = jax.grad(by_hand)(state.net)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("core", [GRU(8), LSTM(8)], ids=["gru", "lstm"])
def test_the_stored_memory_is_the_one_that_acted(core: Any):
    """From it a window says what was said then, across episodes' ends; from an empty memory it does not."""
    agent = over(dataclasses.replace(SMALLEST, core=core), STEPS)
    env = batched(agent, probes.Recall())
    run = fused.init(agent, env, jax.random.key(0))
    params = eqx.tree_at(lambda p: p.counts.steps, agent.policy(run.state), jnp.int32(50))
    sim, _ = rollout(agent, params, env, run.sim, 6, jnp.int32(0), jax.random.key(1))
    _, unroll = rollout(agent, params, env, sim, 20, jnp.int32(0), jax.random.key(2))
    assert unroll.step.last.any()
    stored = unroll.extras["memory"]
    assert (jax.tree.leaves(stored)[0][0] == jax.tree.leaves(sim.memory)[0]).all()
    obs = agent.see(params, unroll.step)
    for t in range(0, 20, 5):
        here = jax.tree.map(lambda m, t=t: m[t], stored)
        _, after = networks.unroll(params.net, obs[t : t + 5], here, unroll.step.first[t : t + 5])
        jax.tree.map(lambda a, m, t=t: np.testing.assert_allclose(a, m[t + 5], atol=1e-6), after, stored)
    whole, zero = (networks.unroll(params.net, obs, m, unroll.step.first)[0] for m in (jax.tree.map(lambda m: m[0], stored), jax.tree.map(lambda m: jnp.zeros_like(m[0]), stored)))  # fmt: skip
    acted = jnp.stack([agent.forward(params, jax.tree.map(lambda m, t=t: m[t], stored), jax.tree.map(lambda x, t=t: x[t], unroll.step))[0] for t in range(21)])  # fmt: skip
    np.testing.assert_allclose(whole[..., 0], acted, atol=1e-5)
    assert np.abs(zero - whole)[0].max() > 1e-3, "the stored memory must matter"
    ends = [int(np.argmax(unroll.step.last[:, b])) for b in range(2)]
    for b, end in enumerate(ends):
        np.testing.assert_allclose(zero[end + 1 :, b], whole[end + 1 :, b], atol=1e-6)


def store(window: int, lead: int, positions: int) -> PrioritisedReplay:
    return PrioritisedReplay(12 * B, 64, window, 0.7, "proportional", lead, positions)


@pytest.mark.parametrize(("lead", "positions"), [(0, 1), (2, 1), (0, 2), (1, 3)])
def test_every_step_that_can_be_learnt_from_is_drawn(lead: int, positions: int):
    """Also the first steps of an episode after a burn-in; and no window from which nothing is learnt."""
    window = lead + positions
    to, ends = store(window, lead, positions), {9, 13, 18}
    batch, _ = drawn(to, filled(to, [4] * 5, ends=tuple(ends)), 400)
    starts = {int(t) for t, b in zip(*np.asarray(batch.step.obs[0]).T, strict=True) if b == 0}
    all_starts = set(range(8, 20 - window + 1))
    assert starts == {t for t in all_starts if not {t + lead + i for i in range(positions)} <= ends}
    reached = {t + lead + i for t in starts for i in range(positions)}
    assert reached - ends == set(range(8 + lead, 20)) - ends


def test_hosted_equals_fused_and_seeds_abreast_equal_a_loop():
    agent = over(SMALLEST, STEPS)
    env, key = batched(agent, CartPole()), jax.random.key(5)
    one, two = fused.Fused(agent, env), Hosted(agent, AsHost(env, jax.random.split(key, 3)[2]))
    (a, left), (b, right) = (r.advance(r.init(key), 20) for r in (one, two))
    assert int(left.updates) == int(right.updates) > 5
    assert (learnt(a) == learnt(b)).all()

    def run(seed: jax.Array) -> jax.Array:
        done, _ = fused.advance(agent, env, fused.init(agent, env, jax.random.key(seed)), jnp.int32(20))
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(done.state.net)])

    together = jax.jit(jax.vmap(run))(jnp.arange(2))
    for i in range(2):
        np.testing.assert_allclose(together[i], jax.jit(run)(jnp.int32(i)), rtol=2e-3, atol=2e-4)


def test_a_replay_in_host_memory_keeps_it_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "LARGE", 0)
    agent, env = imaged()
    agent = dataclasses.replace(agent, core=LSTM(4), sequence=3, burn_in=2)
    one, two = fused.Fused(agent, env), Hosted(agent, AsHost(env, jax.random.split(jax.random.key(5), 3)[2]))
    (a, left), (b, right) = (r.advance(r.init(jax.random.key(5)), 30) for r in (one, two))
    assert two.memory is not None and int(left.updates) == int(right.updates) > 0
    np.testing.assert_allclose(learnt(a), learnt(b), rtol=1e-5, atol=1e-6)
    batch, _ = two.memory.replay.sample(jax.random.key(0))
    assert [x.shape for x in batch.extras["memory"]] == [(6, 8, 4)] * 2 and np.abs(batch.extras["memory"][0]).max() > 0


TOGETHER: dict[str, dict[str, Any]] = {
    "c51": dict(values=C51(0.0, 4.0, 11), replay=Prioritised(0.6, Linear(0.4, 1.0, 0.8)), noisy=Factorised(0.5), double=True, n_step=2),
    "quantiles": dict(values=QuantileRegression(8), backup=Munchausen(0.3, 0.9, -0.1), scale=PopArt(0.1), dueling=True),
    "implicit": dict(values=ImplicitQuantile(8, 16), double=True, scale=Squashed(0.01), core=LSTM(8)),
    "retrace": dict(backup=Retrace(0.9), n_step=3, scale=PopArt(0.1), replay=Prioritised(0.6, Linear(0.4, 1.0, 0.8)), double=True),
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n != "c51" else ()) for n in TOGETHER])
def test_parts_combine_with_memory_and_no_number_is_dead(name: str):
    agent = over(dataclasses.replace(SMALLEST, **TOGETHER[name]), STEPS)
    env = batched(agent, CartPole())
    paths = [p for p, _ in jax.tree_util.tree_leaves_with_path(agent)]
    if agent.noisy is not None:
        paths = [p for p in paths if ".epsilon" not in jax.tree_util.keystr(p[:1])]
    change = lambda x: x + 1 if jnp.issubdtype(x.dtype, jnp.integer) else x * 0.7 + 0.01  # noqa: E731
    stacked = jax.tree.map(lambda *x: jnp.stack(x), agent, *[vary(agent, p, change) for p in paths])

    @jax.jit
    @jax.vmap
    def run(agent: DQN) -> jax.Array:
        done, _ = fused.advance(agent, env, fused.init(agent, env, jax.random.key(0)), jnp.int32(80))
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(done.state.net)])

    weights = np.asarray(run(stacked))
    assert np.isfinite(weights).all()
    dead = [jax.tree_util.keystr(p) for p, w in zip(paths, weights[1:], strict=True) if np.abs(w - weights[0]).max() < 1e-7]  # fmt: skip
    assert not dead, f"these change nothing: {dead}"


@pytest.mark.slow
@pytest.mark.parametrize("name", TOGETHER)
def test_all_parts_remember(name: str):
    changes = TOGETHER[name] | ({"values": C51(-1.5, 1.5, 21)} if name == "c51" else {})
    agent = dataclasses.replace(SMALL["dqn"].probe, learning_rate=3e-3, core=GRU(16), sequence=4, burn_in=1)
    assert returns(dataclasses.replace(agent, **changes), probes.Recall(), 1200) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "solved"), [({"core": GRU(16)}, True), ({"core": GRU(16), "burn_in": 4}, True), ({}, False)]
)
def test_what_was_seen_eight_steps_ago(settings: dict[str, Any], solved: bool):
    agent = dataclasses.replace(SMALL["dqn"].probe, learning_rate=3e-3, **settings)
    found = returns(agent, probes.Recall(8), 2500)
    assert found >= 0.9 if solved else found <= 0.4


def test_a_recurrent_policy_is_exported(tmp_path: Path, unchecked: None):
    pytest.importorskip("onnxruntime")
    agent = DQN(core=LSTM(8), values=QuantileRegression(5), scale=PopArt(), noisy=True)
    params = agent.policy(agent.init(jax.random.key(1), SPEC))
    done = export.export(Policy(agent, params, SPEC), to="onnx", out=tmp_path / "policy")
    assert " ".join(done.inputs) == "obs first memory.0 memory.1"
    assert " ".join(done.outputs) == "action q memory_out.0 memory_out.1" and done.error <= export.TOLERANCE


def test_a_feedforward_network_learns_from_sequences_too():
    """Then a position is a window of its own, and nothing else."""
    agent = dataclasses.replace(SMALLEST, core=None, burn_in=0, double=True, n_step=2, normalise_observations=False)
    alone = dataclasses.replace(agent, sequence=None)
    state, batch = states(agent), eqx.tree_at(lambda u: u.extras, sequences(agent), {})
    cut = lambda x: jnp.concatenate([x[p : p + 3] for p in range(3)], 1)  # noqa: E731
    flat = Unroll(*jax.tree.map(cut, (batch.step, batch.action)), {}, (), jnp.tile(batch.version, 3), jnp.tile(batch.weight, 3))  # fmt: skip
    one, two = (a.learn(state, x, jax.random.key(0))[0].net for a, x in ((agent, batch), (alone, flat)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), one, two)


def test_sizes():
    assert (DQN().positions, DQN().window, DQN(core=GRU()).positions, DQN(core=GRU()).window) == (1, 1, 10, 10)
    agent = DQN(core=GRU(), sequence=20, burn_in=10, n_step=3)
    assert agent.window == 32 == agent.experience.store.window and agent.experience.warm_up == 8 * 33
    assert describe(build(describe(agent))) == describe(agent)
    error, weight = jnp.array([[4.0, 1.0], [2.0, 9.0]]), jnp.array([[1.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(Prioritised(peak=0.8).priority(error, weight), [0.8 * 4 + 0.2 * 3, 1.0], rtol=1e-6)
    assert Uniform().priority(error, weight) is None
    np.testing.assert_array_equal(Prioritised().priority(error[:1], 0 * weight[:1]), error[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(burn_in=4), "burn_in rebuilds a memory, and there is none: set core"),
        (dict(core=GRU(), burn_in=-1), "burn_in must not be negative, and is -1"),
        (dict(sequence=0), "sequence must be positive, not 0"),
        (dict(core=GRU(), sequence=40, burn_in=20, capacity=400), r"69 steps \(burn_in 20, sequence 40, n_step 10\) do not fit into 50 stored"),
        (dict(replay=lambda: Prioritised(peak=1.5)), r"replay.peak lies in \[0, 1\], not 1.5"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(YozhError, match=message):
        settings = settings | {"n_step": 10} if "capacity" in settings else settings
        DQN(**{k: v() if callable(v) and k == "replay" else v for k, v in settings.items()})


def test_a_trained_memory_matters(tmp_path: Path):
    """The policy out of its file remembers from call to call, and forgets at `reset`."""
    agent = dataclasses.replace(SMALL["dqn"].probe, core=GRU(16), sequence=4)
    run, _ = train(agent, probes.Recall(), 600)
    Policy(agent, agent.policy(run.state), probes.Recall().spec).save(tmp_path / "policy.safetensors")
    policy = load(tmp_path)
    for sign in (1.0, -1.0, 1.0):
        policy.reset()
        chosen = [int(policy(np.array([sign * (t == 0), t / 3], np.float32))) for t in range(3)]
        assert chosen[-1] == (sign > 0)
