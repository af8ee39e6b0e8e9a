"""MDPO against the solution of mirror descent; PPG's phases and the store that they learn from."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract import batched
from yozh.agents import MDPO, PPG
from yozh.agents.base import State
from yozh.agents.on_policy import Samples
from yozh.agents.schedules import Counts, Linear, over
from yozh.core import Spec, TimeStep, Unroll, YozhError
from yozh.distributions import Categorical
from yozh.environments.classic import CartPole
from yozh.networks import MLP, ActorCritic, Auto
from yozh.networks.phasic import Phasic
from yozh.runners import fused
from yozh.spaces import Box, Discrete
from yozh.stores import Phase
from yozh.stores.phase import newest

STATES, ACTIONS = 4, 3


def every_pair(old: np.ndarray, advantage: np.ndarray) -> Samples:
    """Each state and action once, weighted by the chance of the action: means over it are expectations."""
    n = STATES * ACTIONS
    state, action = (jnp.asarray(x.reshape(1, n)) for x in np.indices((STATES, ACTIONS)).astype(np.int32))
    zero, no = jnp.zeros((1, n)), jnp.zeros((1, n), bool)
    log_old = jnp.asarray(np.log(old), jnp.float32)
    logits = jnp.repeat(log_old, ACTIONS, 0)[None]
    weight = jnp.asarray(old.reshape(1, n), jnp.float32)
    return Samples(
        step=TimeStep(state, zero, zero + 1.0, no, no), action=action, log_prob=log_old.reshape(1, n), value=zero,
        advantage=jnp.asarray(advantage.reshape(1, n), jnp.float32), target=zero, weight=weight, memory=((), ()),
        policy=Categorical(logits),
    )  # fmt: skip


@pytest.mark.parametrize("t", [0.3, 1.0])
def test_many_small_steps_find_the_mirror_step(t: float):
    """π' ∝ π exp(t A) where every state has weights of its own: within 1e-3 nats, though π is 0.1 nats away and more."""
    rng = np.random.default_rng(0)
    old, advantage = rng.dirichlet(np.ones(ACTIONS) * 2, STATES), rng.normal(size=(STATES, ACTIONS))
    best = old * np.exp(t * advantage)
    best /= best.sum(1, keepdims=True)
    agent = MDPO(t=t, learning_rate=0.05, torso=MLP(()), normalise_advantage=False, max_gradient_norm=100.0)

    @jax.jit
    def descended(samples: Samples) -> tuple[jax.Array, jax.Array]:
        state = agent.init(jax.random.key(0), Spec(Discrete(STATES), Discrete(ACTIONS)))
        head = jnp.asarray(np.log(old).T, jnp.float32)  # the weights that make a table of the linear head
        place = lambda s: (s.net.policy.layer.weight, s.net.policy.layer.bias)  # noqa: E731
        state = eqx.tree_at(place, state, (head, jnp.zeros(ACTIONS)))
        first = agent.look(state.net, samples, None)[0].log_probs
        state, _ = jax.lax.scan(lambda s, _: agent.descend(s, samples, None), state, None, length=200)
        return first, agent.look(state.net, samples, None)[0].log_probs

    before, after = (np.asarray(x)[0, ::ACTIONS] for x in descended(every_pair(old, advantage)))
    np.testing.assert_allclose(np.exp(before), old, atol=1e-5)

    def apart(log_policy: np.ndarray) -> float:
        return float(np.max((best * (np.log(best) - log_policy)).sum(1)))

    assert apart(after) < 1e-3 < 1e-2 < apart(before)


def test_the_loss_of_mirror_descent_by_hand():
    """Both terms, of a policy that is not the old one, at a quarter of the way from t = 2 to 0: t = 1.5."""
    rng = np.random.default_rng(1)
    old, advantage = rng.dirichlet(np.ones(ACTIONS), STATES), rng.normal(size=(STATES, ACTIONS))
    agent = over(MDPO(t=Linear(2.0, 0.0), torso=MLP(()), normalise_advantage=False, value_coefficient=0.0), 100)

    @jax.jit
    def both(steps: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = agent.init(jax.random.key(0), Spec(Discrete(STATES), Discrete(ACTIONS)))
        net = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(x.size), x.shape), state.net)
        state = eqx.tree_at(lambda s: s.counts, state, Counts(steps, jnp.int32(0), jnp.int32(0)))
        samples = every_pair(old, advantage)
        return agent.loss(net, state, samples, None)[0], agent.look(net, samples, None)[0].log_probs

    loss, new = both(jnp.int32(25))
    new = np.exp(np.asarray(new, np.float64)[0, ::ACTIONS])
    gain, kl = (new * advantage).sum(), 0.0
    for s in range(STATES):
        # each of the samples of a state carries its divergence, and their weights add up to 1
        kl += sum(p * np.log(p / q) for p, q in zip(new[s], old[s], strict=True))
    np.testing.assert_allclose(loss, (kl / 1.5 - gain) / STATES, rtol=1e-4)
    assert np.isfinite(both(jnp.int32(100))[0]), "t is 0 at the end of the run"


def test_what_is_no_mirror_descent_is_refused():
    for settings, message in (
        ({"t": 0.0}, "mdpo: t must be positive, not 0"),
        ({"epochs": 1, "minibatches": 1}, "mdpo: one update is plain gradient ascent"),
    ):
        with pytest.raises(YozhError, match=message):
            MDPO(**settings)


def numbered(i: int, memory: bool = True) -> Unroll:
    """An unroll of 2 steps and 3 streams whose numbers say which it is."""
    grid = jnp.full((3, 3), float(i))
    step = TimeStep({"x": grid[..., None]}, grid, grid, grid > 0, grid > 0)
    return Unroll(step, grid, {"log_prob": grid}, (grid[0],) if memory else (), jnp.full(3, i, jnp.int32), jnp.ones(3))


def test_a_phase_keeps_its_unrolls_and_begins_anew():
    store = Phase(2)
    state = store.init(jax.tree.map(jnp.zeros_like, numbered(0)))
    assert not store.ready(state)
    for i, weights, kept in ((1, [1, 0], [1, 0]), (2, [1, 1], [1, 2]), (3, [1, 0], [3, 2]), (4, [1, 1], [3, 4])):
        state = store.add(state, numbered(i))
        batch, _ = store.sample(state, jax.random.key(0))
        assert store.ready(state) and batch.weight.reshape(2, 3)[:, 0].tolist() == weights
        for leaf in (batch.step.obs["x"][0, :, 0], batch.extras["log_prob"][2], batch.memory[0], batch.version):
            assert np.asarray(leaf).reshape(2, 3).tolist() == [[k] * 3 for k in kept]
        fresh = newest(batch, 2)
        for ours, there in zip(jax.tree.leaves(fresh), jax.tree.leaves(numbered(i)), strict=True):
            np.testing.assert_array_equal(ours, there)
        assert (store.recent(state, 4)["x"] == i).all() and store.recent(state, 4)["x"].shape == (4, 1)
    with pytest.raises(YozhError, match=r"store.count must be positive, not 0"):
        Phase(0)


AGENT = PPG(torso=Auto((16,)), streams=4, length=16, minibatches=2, policy_phases=3, auxiliary_epochs=4, learning_rate=3e-3)  # fmt: skip


@eqx.filter_jit
def turns(agent: PPG, n: int) -> tuple[State, dict[str, jax.Array]]:
    """States and metrics after each turn."""
    env = batched(agent, CartPole())
    agent = over(agent, 1000)
    run = fused.init(agent, env, jax.random.key(0))

    def one(run: fused.Run, _: None):
        run, metrics = fused.turn(agent, env, run)
        return run, (run.state, metrics.report)

    return jax.lax.scan(one, run, None, length=n)[1]


def test_the_phase_comes_when_it_is_due():
    states, told = turns(AGENT, 7)
    updates = np.diff(np.asarray(states.counts.updates), prepend=0)
    assert updates.tolist() == [2, 2, 2 + 4 * 3 * 2] * 2 + [2]
    losses = np.asarray(told["auxiliary_loss"])
    assert (losses[[0, 1, 3, 4, 6]] == 0).all() and (losses[[2, 5]] > 0).all()
    moments = np.asarray(jax.tree.leaves(states.optimiser)[0])
    assert moments.tolist() == [2 * (i + 1) for i in range(7)], "its Adam is another one"


def test_the_auxiliary_loss_by_hand():
    spec = Spec(Discrete(STATES), Discrete(ACTIONS))
    old = np.random.default_rng(2).dirichlet(np.ones(ACTIONS), STATES)
    samples = dataclasses.replace(every_pair(old, old), target=jnp.linspace(-1, 1, 12)[None])
    agent = PPG(torso=MLP((5,)), clone=0.7)

    @jax.jit
    def both():
        state = agent.init(jax.random.key(0), spec)
        net = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(x.size), x.shape), state.net)
        loss, slope = jax.value_and_grad(lambda n: agent.auxiliary_loss(n, state, samples, None)[0])(net)
        return loss, slope, agent.look(dataclasses.replace(net, tells=True), samples, None), net

    loss, slope, (policy, value, auxiliary), net = both()
    weight, target = (np.asarray(x, np.float64)[0] for x in (samples.weight, samples.target))
    new = np.asarray(policy.log_probs, np.float64)[0]
    total = 0.0
    for i in range(12):
        kl = sum(p * (np.log(p) - q) for p, q in zip(old[i // ACTIONS], new[i], strict=True))
        errors = [0.5 * (float(v[0, i]) - target[i]) ** 2 for v in (value, auxiliary)]
        total += weight[i] * (sum(errors) + 0.7 * kl)
    np.testing.assert_allclose(loss, total / weight.sum(), rtol=1e-4)
    assert isinstance(net, Phasic) and np.abs(auxiliary - value).max() > 0.1
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(slope) if g.size), "all weights learn in the phase"


def test_the_phase_teaches_the_trunk_and_spares_the_policy():
    """The auxiliary value comes to know what it did not; a large β keeps the policy where it was, β = 0 lets it go."""

    def phases(clone: float) -> tuple[float, np.ndarray]:
        _, told = turns(dataclasses.replace(AGENT, clone=clone, learning_rate=1e-2, auxiliary_epochs=10), 6)
        return float(told["auxiliary_kl"][2]), np.asarray(told["auxiliary_loss"])[[2, 5]]

    free, (first, second) = phases(0.0)
    held, _ = phases(100.0)
    assert held < 0.2 * free
    assert second > 0 and first > 0


def test_a_value_beside_the_policy_changes_nothing_else():
    """Policy and value of the wrapped network are those of the network."""
    spec = Spec(Box((3,)), Discrete(2))
    inner = ActorCritic(Auto((4,)), None, spec, jax.random.key(0), shared=False)
    wrapped = Phasic.of(inner, spec, jax.random.key(0), "orthogonal")
    said, more = wrapped(jnp.ones(3), ((), ()))[0], dataclasses.replace(wrapped, tells=True)(jnp.ones(3), ((), ()))[0]
    assert (said[0].logits == inner(jnp.ones(3), ((), ()))[0][0].logits).all() and len(said) == 2 and len(more) == 3


def test_what_has_no_phase_is_refused():
    for settings, message in (
        ({"shared": True}, "ppg: the phase hands to the policy's trunk what the value's has learnt"),
        ({"policy_phases": 0}, "ppg: policy_phases must be positive, not 0"),
        ({"auxiliary_epochs": 0}, "ppg: auxiliary_epochs must be positive, not 0"),
        ({"clone": -1.0}, "ppg: clone must not be negative, and is -1"),
        ({"dual_clip": 0.5}, "ppg: dual_clip must be above 1"),
    ):
        with pytest.raises(YozhError, match=message):
            PPG(**settings)
