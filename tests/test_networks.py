"""Networks: shapes, initialisation, what memory does, what the parts compute."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yozh import networks, spaces
from yozh.agents import A2C
from yozh.core import Spec, YozhError
from yozh.networks import (
    CNN,
    GRU,
    LSTM,
    MLP,
    ActionValue,
    ActorCritic,
    Auto,
    PolicyNetwork,
    QNetwork,
    Ready,
    forward,
    unroll,
)  # fmt: skip
from yozh.networks.hindsight import Hindsight
from yozh.networks.layers import conv, linear
from yozh.networks.network import initial_memory
from yozh.networks.phasic import Phasic
from yozh.networks.torsos import as_blueprint, flat_size, flatten
from yozh.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

OBSERVATIONS = {
    "vector": Box((3,)),
    "matrix": Box((4, 5)),
    "atari": Box((4, 84, 84), 0, 255, "uint8"),
    "minatar": Box((10, 10, 4), 0, 1, "bool"),
    "discrete": Discrete(6),
    "multi": MultiDiscrete((2, 3)),
    "bits": MultiBinary(5),
    "dict": Dict.of({"image": Box((10, 10, 3), 0, 255, "uint8"), "goal": Discrete(4), "speed": Box((2,))}),
    "tuple": Tuple((Box((2,)), Dict.of({"a": Discrete(3)}))),
}


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_auto_reads_every_observation(name: str):
    space = OBSERVATIONS[name]
    spec = Spec(space, Discrete(3))
    net = QNetwork(Auto((16,), "relu", "uniform"), None, spec, jax.random.key(0), actions=3, dueling=False)
    ones = spaces.map_leaves(lambda s: jnp.ones((2, *s.shape), s.dtype), space)
    zeros = spaces.map_leaves(lambda s: jnp.zeros((2, *s.shape), s.dtype), space)
    q, memory = forward(net, ones, (), jnp.zeros(2, bool))
    assert q.shape == (2, 3) and memory == ()
    assert not np.allclose(q, forward(net, zeros, (), jnp.zeros(2, bool))[0]), "the observation must matter"


def test_image_networks_are_those_of_the_papers():
    nature = Auto().build(OBSERVATIONS["atari"], jax.random.key(0))
    shapes = [x.shape for x in jax.tree.leaves(nature) if x.ndim in (2, 4)]
    assert shapes == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136)]
    minatar = Auto().build(OBSERVATIONS["minatar"], jax.random.key(0))
    assert [x.shape for x in jax.tree.leaves(minatar) if x.ndim in (2, 4)] == [(16, 4, 3, 3), (128, 1024)]


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (4, 2), (8, 4), (3, 2)])
def test_convolutions_on_a_cpu_are_those_of_jax(kernel: int, stride: int, monkeypatch):
    """Answers and gradients, of images that are not square and leave a margin."""
    layer = conv(3, 5, kernel, stride, jax.random.key(0), init="uniform")
    x = jax.random.normal(jax.random.key(1), (13, 18, 3))

    def answers() -> Any:
        both = jax.value_and_grad(lambda layer, x: (jnp.sum((y := layer(x)) ** 3), y), argnums=(0, 1), has_aux=True)
        (_, y), slopes = jax.jit(lambda layer, x: both(layer, x))(layer, x)
        return y, slopes

    patches = answers()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for one, two in zip(jax.tree.leaves(patches), jax.tree.leaves(answers()), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)
    y = np.moveaxis(np.asarray(eqx.nn.Conv2d.__call__(layer, jnp.moveaxis(x, -1, 0))), 0, -1)
    np.testing.assert_allclose(patches[0], y, rtol=1e-4, atol=1e-5)


def test_without_layers_a_policy_is_a_table():
    """The state's column of the head's weights, and a bias; what is learnt in one state changes no other column."""
    agent, spec = A2C(torso=MLP(())), Spec(Discrete(6), Discrete(3))
    net = agent.init(jax.random.key(0), spec).net
    table = jax.random.normal(jax.random.key(1), (3, 6))
    net = eqx.tree_at(lambda n: n.policy.layer.weight, net, table)
    states = jnp.arange(6, dtype=jnp.int32)
    (policy, value), _ = jax.jit(lambda net: forward(net, states, initial_memory(net, 6), jnp.ones(6, bool)))(net)
    np.testing.assert_allclose(policy.logits, table.T + np.asarray(net.policy.layer.bias)[None], rtol=1e-6)
    np.testing.assert_allclose(value, net.value.weight[0] + net.value.bias[0], rtol=1e-6)
    learnt = eqx.filter_jit(eqx.filter_grad(lambda n: n(states[2], n.initial_memory())[0][0].log_prob(jnp.int32(1))))
    slope = learnt(net)
    chances = jax.nn.softmax(table[:, 2] + net.policy.layer.bias)
    np.testing.assert_allclose(slope.policy.layer.weight[:, 2], jnp.eye(3)[1] - chances, atol=1e-6)
    assert not slope.policy.layer.weight.at[:, 2].set(0.0).any() and not jax.tree.leaves(net.actor)


@pytest.mark.parametrize(
    ("space", "obs", "expected"),
    [
        (Discrete(3), 2, [0, 0, 1]),
        (MultiDiscrete((2, 3)), [1, 0], [0, 1, 1, 0, 0]),
        (MultiBinary(2), [1, 0], [1, 0]),
        (Box((2,), 0, 255, "uint8"), [255, 0], [1, 0]),
        (Box((2, 1)), [[0.5], [2.0]], [0.5, 2.0]),
    ],
)
def test_flatten(space, obs, expected):
    found = flatten(space, jnp.asarray(obs, space.dtype))
    np.testing.assert_allclose(found, expected)
    assert found.dtype == jnp.float32 and len(found) == flat_size(space)


def test_orthogonal_initialisation():
    layer = linear(6, 4, jax.random.key(0), init="orthogonal", gain=2.0)
    np.testing.assert_allclose(layer.weight @ layer.weight.T, 4 * np.eye(4), atol=1e-5)
    assert (layer.bias == 0).all()
    wide = linear(4, 6, jax.random.key(0), init="orthogonal", gain=1.0)
    np.testing.assert_allclose(wide.weight.T @ wide.weight, np.eye(4), atol=1e-5)
    spec = Spec(Box((3,)), Discrete(2))
    net = ActorCritic(Auto(), None, spec, jax.random.key(0), shared=False)
    np.testing.assert_allclose(jnp.linalg.norm(net.policy.layer.weight, axis=1), 0.01, rtol=1e-4)
    np.testing.assert_allclose(jnp.linalg.norm(net.value.weight), 1.0, rtol=1e-4)


def test_heads_begin_as_their_torso_does():
    """A switch for the whole network: PyTorch's uniform numbers in every layer, or orthogonal ones; those of a torso that does not say."""
    spec, real = Spec(Box((3,)), Discrete(2)), Spec(Box((3,)), Box((2,)))

    def heads(torso: Any) -> list[Any]:
        torso, key = as_blueprint(torso), jax.random.key(0)
        both = ActorCritic(torso, None, spec, key, shared=False)
        each = ActorCritic(torso, None, spec, key, shared=True, actions=2)
        said = Hindsight(torso, None, spec, key, actions=2, units=5, returns=False)
        q, policy = ActionValue(torso, None, real, key, widths=(7,)), PolicyNetwork(torso, None, real, key)
        tells = Phasic.of(both, spec, key, torso.heads).auxiliary
        return [both.policy.layer, both.value, each.value, said.earned, said.chosen, said.outcome, *q.joint.layers, q.value,
                policy.policy.layer, tells]  # fmt: skip

    def mine(space: Any, key: jax.Array) -> Any:
        return Auto().build(space, key)

    for layer in heads(Auto(init="uniform")):
        bound = 1 / np.sqrt(layer.weight.shape[1])
        for x in (layer.weight, layer.bias):
            assert 0.3 * bound < np.abs(x).max() <= bound
    for layer in heads(Auto()) + heads(mine):
        assert (layer.bias == 0).all()


def test_dueling_ignores_a_shift_of_all_advantages():
    spec = Spec(Box((3,)), Discrete(4))
    net = QNetwork(MLP((8,)), None, spec, jax.random.key(0), actions=4, dueling=True)
    obs, first = jnp.ones((1, 3)), jnp.zeros(1, bool)
    q = forward(net, obs, (), first)[0]
    shifted = eqx.tree_at(lambda n: n.head.advantage.bias, net, net.head.advantage.bias + 5.0)
    np.testing.assert_allclose(forward(shifted, obs, (), first)[0], q, atol=1e-5)
    np.testing.assert_allclose(q.mean(), net.head.value(net.trunk.torso(obs[0]))[0], atol=1e-6)
    raised = eqx.tree_at(lambda n: n.head.value.bias, net, net.head.value.bias + 5.0)
    np.testing.assert_allclose(forward(raised, obs, (), first)[0], q + 5.0, atol=1e-5)


@pytest.mark.parametrize("core", [GRU(8), LSTM(8)], ids=["gru", "lstm"])
@pytest.mark.parametrize("shared", [True, False])
def test_unroll_equals_steps_and_clears_memory(core, shared: bool):
    spec = Spec(Box((3,)), Discrete(2))
    net = ActorCritic(MLP((8,)), core, spec, jax.random.key(0), shared=shared)
    obs = jax.random.normal(jax.random.key(1), (6, 2, 3))
    first = jnp.zeros((6, 2), bool).at[3, 0].set(True)
    memory = jax.tree.map(lambda x: x + 0.3, initial_memory(net, 2))
    (policy, value), end = unroll(net, obs, memory, first)
    carried = memory
    for t in range(6):
        (p, v), carried = forward(net, obs[t], carried, first[t])
        np.testing.assert_allclose(p.logits, policy.logits[t], atol=1e-6)
        np.testing.assert_allclose(v, value[t], atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), carried, end)
    (fresh, _), _ = unroll(net, obs[3:, :1], initial_memory(net, 1), first[3:, :1])
    np.testing.assert_allclose(fresh.logits, policy.logits[3:, :1], atol=1e-6)


def test_masks_reach_policy_and_values():
    spec = Spec(Box((3,)), Discrete(4), legal=True)
    legal = jnp.array([[True, False, True, False]])
    obs, first = jnp.ones((1, 3)), jnp.zeros(1, bool)
    net = ActorCritic(MLP((8,)), None, spec, jax.random.key(0), shared=False)
    (policy, _), _ = forward(net, obs, ((), ()), first, legal)
    np.testing.assert_allclose(jnp.exp(policy.log_probs)[0, [1, 3]], 0.0)
    q = forward(QNetwork(MLP((8,)), None, spec, jax.random.key(0), actions=4, dueling=False), obs, (), first, legal)[0]
    assert int(jnp.argmax(q)) in (0, 2) and np.isfinite(q).all()


class Mine(eqx.Module):
    layer: eqx.nn.Linear

    def __call__(self, obs):
        return jax.nn.silu(self.layer(obs))


def test_a_torso_of_ones_own():
    module = Mine(eqx.nn.Linear(3, 7, key=jax.random.key(0)))
    assert isinstance(as_blueprint(module), Ready)
    spec = Spec(Box((3,)), Discrete(2))
    for torso in (module, lambda space, key: Mine(eqx.nn.Linear(space.shape[0], 7, key=key))):
        net = ActorCritic(as_blueprint(torso), None, spec, jax.random.key(0), shared=True)
        assert net.policy.layer.in_features == 7
    with pytest.raises(YozhError, match="a torso is"):
        as_blueprint(3)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(YozhError, match="unknown activation 'rellu'"):
        MLP(activation="rellu")
    with pytest.raises(YozhError, match="CNN takes a Box of three axes"):
        CNN().build(Box((3,)), jax.random.key(0))
    with pytest.raises(YozhError, match="too small for kernels"):
        CNN().build(Box((10, 10, 3)), jax.random.key(0))
    with pytest.raises(YozhError, match="a policy takes Discrete"):
        ActorCritic(Auto(), None, Spec(Box((3,)), Dict.of({"a": Discrete(2)})), jax.random.key(0), shared=True)
    with pytest.raises(YozhError, match="finite bounds"):
        ActorCritic(Auto(), None, Spec(Box((3,)), Box((1,))), jax.random.key(0), shared=True, squash=True)
    with pytest.raises(YozhError, match="only continuous actions are squashed, not MultiBinary"):
        ActorCritic(Auto(), None, Spec(Box((3,)), MultiBinary(2)), jax.random.key(0), shared=True, squash=True)


def test_names():
    assert set(networks.__all__) <= set(dir(networks))
