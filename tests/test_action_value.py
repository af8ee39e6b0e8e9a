"""The value of a continuous action: what it sees of observation and action, and how it is asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_networks import OBSERVATIONS
from yozh import networks, spaces
from yozh.core import Spec, YozhError
from yozh.networks import GRU, MLP, ActionValue, Auto, forward, unroll
from yozh.networks.network import initial_memory
from yozh.spaces import Box, Discrete, MultiBinary

PAIR = Spec(Box((3,)), Box((2,), -1.0, 1.0))


def ask(net: ActionValue, obs: jax.Array, action: jax.Array) -> jax.Array:
    return jax.vmap(lambda o, a: net((o, a), ())[0])(obs, action)


def normal(key: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(key), shape)


def test_layer_by_layer():
    """Features and action side by side, one hidden layer, one number."""
    net = ActionValue(MLP((5,)), None, PAIR, jax.random.key(0), widths=(4,))
    obs, action = normal(1, 3), normal(2, 2)
    first, second = net.trunk.torso.layers.layers[0], net.joint.layers[0]
    seen = np.tanh(np.asarray(first.weight) @ np.asarray(obs) + np.asarray(first.bias))
    met = np.asarray(second.weight) @ np.concatenate([seen, np.asarray(action)]) + np.asarray(second.bias)
    value = np.asarray(net.value.weight[0]) @ np.maximum(met, 0.0) + np.asarray(net.value.bias[0])
    np.testing.assert_allclose(net((obs, action), ())[0], value, rtol=1e-5, atol=1e-6)


def test_without_joint_layers_it_is_linear_in_the_action():
    net = ActionValue(MLP((5,)), None, PAIR, jax.random.key(0), widths=())
    slope = jax.vmap(jax.grad(lambda a: net((jnp.ones(3), a), ())[0]))(normal(1, 4, 2))
    np.testing.assert_allclose(slope, np.tile(net.value.weight[:, -2:], (4, 1)), rtol=1e-5)


def test_without_a_torso_the_action_joins_the_observation():
    net = ActionValue(MLP(()), None, PAIR, jax.random.key(0), widths=(7,))
    assert net.joint.layers[0].weight.shape == (7, 5) and not jax.tree.leaves(net.trunk)


@pytest.mark.parametrize("name", ["minatar", "bits", "dict"])
def test_any_observation_and_the_action_matter(name: str):
    space = OBSERVATIONS[name]
    net = ActionValue(Auto((16,), "relu", "uniform"), None, Spec(space, Box((2,), -1.0, 1.0)), jax.random.key(0))
    one, zero = (spaces.map_leaves(lambda s, x=x: x((1, *s.shape), s.dtype), space) for x in (jnp.ones, jnp.zeros))
    first, a, b = jnp.zeros(1, bool), jnp.zeros((1, 2)), jnp.array([[0.5, -0.5]])
    values = [forward(net, seen, (), first)[0] for seen in ((one, a), (one, b), (zero, a))]
    assert values[0].shape == (1,) and len({float(v[0]) for v in values}) == 3


@pytest.mark.parametrize(
    ("low", "high", "seen"),
    [(-2.0, 2.0, [0.5, -1.0]), ((0.0, -2.0), (2.0, 2.0), [0.0, -1.0]), (-np.inf, np.inf, [1.0, -2.0]),
     (-3.4e38, 3.4e38, [1.0, -2.0]), (0.0, np.inf, [1.0, -2.0]), ((1.0, -2.0), (1.0, 2.0), [1.0, -1.0])],
    ids=["bounds", "one for each", "unbounded", "floats' own", "half bounded", "no room"],
)  # fmt: skip
def test_bounded_actions_are_seen_on_the_scale_of_one(low, high, seen):
    net = ActionValue(MLP((4,)), None, Spec(Box((3,)), Box((2,), low, high)), jax.random.key(0))
    np.testing.assert_allclose(net.embed((jnp.ones(3), jnp.array([1.0, -2.0])))[1], seen, rtol=1e-6)


def test_several_actions_share_the_features_of_a_step():
    net = ActionValue(MLP((5,)), None, PAIR, jax.random.key(0))
    obs, actions = normal(1, 3), normal(2, 4, 2)
    (seen, _), _ = net.recur(net.embed((obs, actions[0])), ())
    shared = jax.vmap(lambda a: net.read((seen, a), None))(actions)
    np.testing.assert_allclose(shared, ask(net, jnp.tile(obs, (4, 1)), actions), rtol=1e-5)


def test_two_at_once():
    """Each with weights of its own, together what they say apart."""
    keys = jax.random.split(jax.random.key(0))
    both = jax.vmap(lambda key: ActionValue(Auto((8,)), None, PAIR, key))(keys)
    obs, action = normal(1, 4, 3), normal(2, 4, 2)
    together = jax.vmap(ask, in_axes=(0, None, None))(both, obs, action)
    apart = jnp.stack([ask(ActionValue(Auto((8,)), None, PAIR, key), obs, action) for key in keys])
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-6)
    assert together.shape == (2, 4) and np.abs(together[0] - together[1]).min() > 1e-3


def test_its_memory_is_of_observations_and_cleared_between_episodes():
    net = ActionValue(MLP((5,)), GRU(6), PAIR, jax.random.key(0))
    obs, action = normal(1, 5, 2, 3), normal(2, 5, 2, 2)
    first = jnp.zeros((5, 2), bool).at[3, 0].set(True)
    value, _ = unroll(net, (obs, action), initial_memory(net, 2), first)
    fresh, _ = unroll(net, (obs[3:, :1], action[3:, :1]), initial_memory(net, 1), first[3:, :1])
    np.testing.assert_allclose(fresh, value[3:, :1], atol=1e-6)
    forgetful, _ = networks.forward(net, (obs[4], action[4]), initial_memory(net, 2), jnp.zeros(2, bool))
    assert np.abs(forgetful - value[4]).min() > 1e-4


@pytest.mark.parametrize("space", [Discrete(3), MultiBinary(2)])
def test_other_actions_are_refused(space: spaces.Space):
    with pytest.raises(YozhError, match=r"takes Box actions, not .*; a QNetwork has one for each"):
        ActionValue(Auto(), None, Spec(Box((3,)), space), jax.random.key(0))
