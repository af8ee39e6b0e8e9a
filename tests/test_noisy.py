"""Noisy layers: how large the noise is, that evaluation has none, and that it is learnt and explores."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import yozh
from tests.contract import SMALL, train
from yozh import networks, presets
from yozh.agents import DQN
from yozh.agents.actor_critic import stirred
from yozh.agents.values import ImplicitQuantile
from yozh.core import Spec, TimeStep, YozhError
from yozh.environments import probes
from yozh.environments.batched import Vectorised
from yozh.networks import CNN, MLP, QNetwork, forward
from yozh.networks.noisy import Factorised, Independent, NoisyLinear, mean_sigma, perturbed
from yozh.runners import evaluation, fused
from yozh.runners.rollout import rollout
from yozh.spaces import Box, Discrete

SPEC = Spec(Box((3,)), Discrete(2))


def layer(noise, inputs: int = 6, outputs: int = 5) -> NoisyLinear:
    return noise.install(eqx.nn.Linear(inputs, outputs, key=jax.random.key(0)))


def noisy_layers(net) -> list[NoisyLinear]:
    found = jax.tree.leaves(net, is_leaf=lambda x: isinstance(x, NoisyLinear))
    return [x for x in found if isinstance(x, NoisyLinear)]


def draws(noisy: NoisyLinear, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Noise on weights and biases, of many draws."""
    many = jax.vmap(noisy.perturbed)(jax.random.normal(jax.random.key(1), (n, noisy.numbers)))
    return np.asarray(many.weight - noisy.weight[None]), np.asarray(many.bias - noisy.bias[None])


def test_factorised_noise():
    """E f² = E|ε| = √(2/π): a weight's variance is σ² · 2/π, a bias's σ² · √(2/π)."""
    noisy = layer(Factorised(0.8))
    np.testing.assert_allclose(noisy.weight_sigma, 0.8 / np.sqrt(6), rtol=1e-6)
    np.testing.assert_allclose(noisy.bias_sigma, 0.8 / np.sqrt(6), rtol=1e-6)
    weight, bias = draws(noisy)
    np.testing.assert_allclose(weight.mean(0), 0.0, atol=0.01)
    np.testing.assert_allclose(weight.var(0), 0.64 / 6 * 2 / np.pi, rtol=0.06)
    np.testing.assert_allclose(bias.var(0), 0.64 / 6 * np.sqrt(2 / np.pi), rtol=0.06)
    assert np.linalg.matrix_rank(weight[0], tol=1e-5) == 1, "one draw an input and one an output"


def test_independent_noise():
    noisy = layer(Independent(0.3))
    weight, bias = draws(noisy)
    np.testing.assert_allclose(weight.std(0), 0.3, rtol=0.03)
    np.testing.assert_allclose(bias.std(0), 0.3, rtol=0.03)
    corner = np.corrcoef(weight[:, 0, 0], weight[:, 0, 1])[0, 1]
    assert abs(corner) < 0.03 and np.linalg.matrix_rank(weight[0], tol=1e-5) == 5


def test_every_fully_connected_layer_becomes_noisy_and_without_a_draw_nothing_changes():
    plain = QNetwork(MLP((8, 8)), None, SPEC, jax.random.key(0), actions=2, dueling=True)
    noisy = Factorised().install(plain)
    layers = jax.tree.leaves(noisy, is_leaf=lambda x: isinstance(x, NoisyLinear))
    assert len(layers) == 4 and all(isinstance(x, NoisyLinear) for x in layers)
    obs, first = jax.random.normal(jax.random.key(1), (5, 3)), jnp.zeros(5, bool)
    expected = forward(plain, obs, (), first)[0]
    np.testing.assert_array_equal(forward(noisy, obs, (), first)[0], expected)
    one, again, other = (forward(perturbed(noisy, jax.random.key(i)), obs, (), first)[0] for i in (0, 0, 1))
    assert (one == again).all() and np.abs(one - other).min() > 1e-4 and np.abs(one - expected).min() > 1e-4
    assert perturbed(plain, jax.random.key(0)) is plain
    image = Factorised().install(CNN((4,), (3,), (1,), (8,)).build(Box((6, 6, 3)), jax.random.key(0)))
    assert isinstance(image.convolutions[0], eqx.nn.Conv2d) and isinstance(image.layers.layers[0], NoisyLinear)


def test_layers_draw_apart_from_each_other():
    zero = jax.tree.map(jnp.zeros_like, eqx.nn.Linear(4, 4, key=jax.random.key(0)))
    pair = perturbed(Factorised().install((zero, zero)), jax.random.key(0))
    assert not np.allclose(pair[0].weight, pair[1].weight)


def test_sigma_has_a_gradient():
    noisy = layer(Factorised())
    gradient = jax.grad(lambda m: jnp.sum(perturbed(m, jax.random.key(3))(jnp.ones(6)) ** 2))(noisy)
    assert (jnp.abs(gradient.weight_sigma) > 1e-5).all() and (jnp.abs(gradient.bias_sigma) > 1e-5).all()
    np.testing.assert_allclose(mean_sigma({"a": noisy, "b": jnp.ones(3)}), 0.5 / np.sqrt(6), rtol=1e-6)


def test_acting_explores_by_noise_alone_and_evaluation_has_none():
    agent = DQN(torso=MLP((8,)), noisy=True, epsilon=1.0)
    assert isinstance(agent.noisy, Factorised)
    first = agent.policy(agent.init(jax.random.key(0), SPEC))
    params = eqx.tree_at(lambda p: p.counts.updates, first, jnp.asarray(1))
    step = TimeStep(jax.random.normal(jax.random.key(1), (200, 3)), jnp.zeros(200), jnp.ones(200), *[jnp.zeros(200, bool)] * 2)  # fmt: skip
    act = lambda i, explore: agent.act(params, (), step, jax.random.key(i), explore=explore)[0]  # noqa: E731
    mean = forward(params.net, step.obs, (), step.first)[0][..., 0].argmax(-1)
    assert (act(0, False) == mean).all() and (act(1, False) == mean).all()
    noisy = np.stack([act(i, True) for i in range(20)])
    q = np.stack([forward(perturbed(params.net, jax.random.key(i)), step.obs, (), step.first)[0][..., 0] for i in range(20)])  # fmt: skip
    assert (noisy == q.argmax(-1)).all(), "the best action under the draw, whatever epsilon is"
    assert (noisy != np.asarray(mean)[None]).any()
    actions, spread = SPEC.action.n, [agent.act(first, (), step, jax.random.key(i))[0] for i in range(50)]
    counts = np.bincount(np.stack(spread).ravel(), minlength=actions)
    deviation = np.sqrt(counts.sum() * (1 / actions) * (1 - 1 / actions))
    assert (np.abs(counts - counts.sum() / actions) < 4 * deviation).all(), "any action before the first update"


def test_fractions_are_no_function_of_the_noise():
    """Φ of a normal number is uniform, as a fraction is: drawn from one key they are the same bits."""
    agent = DQN(values=ImplicitQuantile(8), noisy=Independent(0.1), torso=MLP((8,)))
    state, key = agent.init(jax.random.key(0), SPEC), jax.random.key(5)
    step = TimeStep(jnp.zeros((1, 3)), jnp.zeros(1), jnp.ones(1), *[jnp.zeros(1, bool)] * 2)
    _, (_, fraction), _ = agent.answer(state.net, state, None, step, key)
    layers = zip(noisy_layers(perturbed(state.net, key)), noisy_layers(state.net), strict=True)
    noise = [((m.weight - n.weight) / n.weight_sigma, (m.bias - n.bias) / n.bias_sigma) for m, n in layers]
    uniform = jax.scipy.stats.norm.cdf(jnp.concatenate([x.ravel() for x in jax.tree.leaves(noise)]))
    nearest = jnp.abs(uniform[:, None] - fraction).min(0)
    assert fraction.shape == (1, 8) and nearest.max() > 1e-3


def test_noisy_dqn_learns_without_epsilon():
    agent = dataclasses.replace(SMALL["dqn"].probe, noisy=True, learning_rate=3e-3)
    env = Vectorised(probes.Chosen(), agent.streams)
    run, metrics = train(agent, probes.Chosen(), 400)
    found = evaluation.evaluate(agent, agent.policy(run.state), Vectorised(env.env, 20), episodes=100, seed=1)
    assert found["mean_return"] >= 0.95
    assert "noise" in metrics.report


@pytest.mark.slow
def test_cartpole_is_learnt_by_noise_alone():
    """On this seed a network that explores by noise from the first step on stays at 131."""
    preset = presets.find("dqn", "CartPole-v1")
    agent = dataclasses.replace(preset.agent, noisy=True, warm_up=5000)
    done = yozh.train(agent, "CartPole-v1", steps=preset.steps, seed=1, eval_every=preset.steps)
    assert done.summary["evaluation"]["mean_return"] >= 475


@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_policy_gradients_take_noise_too(name: str):
    agent = dataclasses.replace(SMALL[name].probe, noisy=True)
    run, _ = train(agent, probes.Matched(), 400)
    found = evaluation.evaluate(agent, agent.policy(run.state), Vectorised(probes.Matched(), 20), episodes=100, seed=1)
    assert found["mean_return"] >= 0.9
    assert isinstance(run.state.net.policy.layer, NoisyLinear)


@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_what_acted_under_noise_is_learnt_from_under_the_same(name: str):
    agent = dataclasses.replace(SMALL[name].probe, noisy=Factorised(2.0))
    env = Vectorised(probes.Matched(), agent.streams)
    run = fused.Fused(agent, env).init(jax.random.key(0))
    for version in (0, 7):
        state = eqx.tree_at(lambda s: s.counts.updates, run.state, jnp.int32(version))
        _, u = rollout(agent, agent.policy(state), env, run.sim, 8, jnp.int32(version), jax.random.key(1))

        def off(net, u=u):
            policy = networks.unroll(net, u.step.obs, u.memory[0], u.step.first)[0][0]
            return np.abs(policy.log_prob(u.action) - u.extras["log_prob"])[:-1].max()

        assert off(stirred(state.net, agent.noise(state, u.version[0]))) < 1e-5
        assert off(stirred(state.net, agent.noise(state, u.version[0] + 1))) > 1e-2 < off(state.net)


def test_what_is_no_noise_is_refused():
    assert DQN(noisy=False).noisy is None and DQN().noisy is None
    for bad, message in ((lambda: DQN(noisy="yes"), "noisy is true, false or a Noise"), (lambda: Factorised(0.0), "noisy.sigma must be positive")):  # fmt: skip
        with pytest.raises(YozhError, match=message):
            bad()
