"""TRPO and NPG beyond the contract: the Fisher matrix, the equation solved with it, the line search."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from tests.test_pqn import few
from yozh import networks
from yozh.agents import NPG, TRPO
from yozh.agents.natural import backtrack, conjugate_gradients, fisher_product
from yozh.agents.schedules import over
from yozh.core import Spec, YozhError
from yozh.distributions import Categorical
from yozh.environments.batched import Vectorised
from yozh.environments.classic import CartPole
from yozh.losses import weighted_mean
from yozh.networks import ActorCritic, Auto
from yozh.runners import fused
from yozh.runners.rollout import rollout
from yozh.spaces import Box, Discrete, MultiBinary, MultiDiscrete


def test_conjugate_gradients_solve_f_x_is_g():
    """In float64, on the Fisher matrix of a small policy: to 1e-8."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        seen, first = jnp.asarray(rng.normal(size=(9, 4))), rng.normal(size=4 * 5 + 5 * 3)

        def policy(w: jax.Array) -> Categorical:
            return Categorical(jnp.tanh(seen @ w[:20].reshape(4, 5)) @ w[20:].reshape(5, 3))

        weights, g = jnp.asarray(first), jnp.asarray(rng.normal(size=35))

        @jax.jit
        def solved(weights: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
            fisher = fisher_product(policy, weights, jnp.ones(9))
            damped = lambda v: fisher(v) + 1e-2 * v  # noqa: E731
            still = conjugate_gradients(damped, g, 0), conjugate_gradients(damped, 0.0 * g, 5)
            return conjugate_gradients(damped, g, 200, 1e-24), jax.vmap(fisher)(jnp.eye(35)), *still

        x, explicit, *still = (np.asarray(y) for y in solved(weights, g))
        assert x.dtype == np.float64
        np.testing.assert_allclose(explicit @ x + 1e-2 * x, g, atol=1e-8)
        np.testing.assert_array_equal(still, 0.0)

        # by the other definition, the mean over states of the scores' outer products under the policy
        scores = jax.jit(jax.jacobian(lambda w: policy(w).log_probs))(weights)
        chance = np.exp(policy(weights).log_probs)
        np.testing.assert_allclose(explicit, np.einsum("sa,sai,saj->ij", chance, scores, scores) / 9, atol=1e-12)


@pytest.mark.parametrize(
    ("action", "squash"),
    [(Discrete(3), False), (MultiDiscrete((2, 3)), False), (MultiBinary(2), False), (Box((2,), -1.0, 1.0), False), (Box((2,), -1.0, 1.0), True)],
    ids=["discrete", "several", "bits", "normal", "squashed"],
)  # fmt: skip
def test_the_fisher_product_is_that_with_the_explicit_matrix(action, squash):
    """The Hessian of the mean KL divergence, of a whole network, with a mask and steps that do not count."""
    masked = not isinstance(action, Box)
    spec = Spec(Box((2,)), action, legal=masked)
    size = {Discrete: 3, MultiDiscrete: 5, MultiBinary: 2}.get(type(action), 0)
    legal = jnp.ones((2, 3, size), bool).at[0, 0, 1].set(False) if masked else None
    counts = jnp.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])

    @jax.jit
    def both(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        net = ActorCritic(Auto((3,)), None, spec, key, shared=False, squash=squash)
        obs = jax.random.normal(key, (2, 3, 2))
        weights, unravel = ravel_pytree((net.actor, net.policy))
        weights = weights + 0.3 * jax.random.normal(key, weights.shape)

        def policy(w: jax.Array):
            there = eqx.tree_at(lambda n: (n.actor, n.policy), net, unravel(w))
            return networks.unroll(there, obs, ((), ()), jnp.zeros((2, 3), bool), legal)[0][0]

        here = policy(weights)
        explicit = jax.hessian(lambda w: weighted_mean(here.kl(policy(w)), counts))(weights)
        return explicit, jax.vmap(fisher_product(policy, weights, counts))(jnp.eye(len(weights)))

    explicit, product = both(jax.random.key(0))
    assert np.abs(explicit).max() > 0.1
    np.testing.assert_allclose(product, explicit, atol=2e-5)


def hill(top: float):
    """A surrogate with its top there, and a KL divergence of w²."""
    return lambda w: (-jnp.square(w[0] - top), jnp.square(w[0]))


def test_the_line_search_by_hand():
    start, step = jnp.zeros(1), jnp.ones(1)

    def search(judge, start: jax.Array, delta: float) -> tuple[jax.Array, dict[str, jax.Array]]:
        return jax.jit(lambda w, d: backtrack(judge, w, step, shrink=jnp.float32(0.5), tries=4, delta=d))(start, delta)

    found, told = search(hill(5.0), start, 0.3)
    assert (found[0], told["line_search_steps"], told["accepted"], told["kl"]) == (0.5, 2, 1, 0.25), "KL 1, then .25"
    found, told = search(hill(0.2), start, 9.0)
    assert (found[0], told["line_search_steps"]) == (0.25, 3), "both 1 and .5 are farther from the top than 0 is"
    found, told = search(hill(-1.0), start + 0.1, 9.0)
    assert (found == start + 0.1).all() and (told["line_search_steps"], told["accepted"], told["kl"]) == (4, 0, 0)
    found, told = search(lambda w: (jnp.sum(w), jnp.nan), start, 9.0)
    assert (found == start).all() and told["accepted"] == 0, "what is not a number is no improvement"


def test_every_step_keeps_its_word():
    """Of an agent, turn by turn: an accepted step has a KL divergence of at most δ and a better surrogate, both computed anew
    from probabilities; a refused one leaves the policy's weights to the bit, and the value learns all the same."""
    agent = TRPO(delta=0.3, damping=1e-3, tries=2, torso=Auto((16,)), streams=2, length=16, epochs=1, minibatches=1)
    agent, env = over(agent, 1000), Vectorised(CartPole(), 2)

    @jax.jit
    def turn(run: fused.Run, key: jax.Array):
        state, (act, learn) = run.state, jax.random.split(key)
        sim, unroll = rollout(agent, agent.policy(state), env, run.sim, 16, state.counts.updates, act)
        after, report = agent.learn(state, unroll, learn)
        _, samples = agent.samples(state, unroll, None)
        logits = [agent.look(s.net, samples, None)[0].log_probs for s in (state, after)]
        return dataclasses.replace(run, state=after, sim=sim), report, samples, logits

    run, outcomes = fused.init(agent, env, jax.random.key(0)), []
    for i in range(25):
        before = run.state.net
        run, report, samples, logits = turn(run, jax.random.key(i))
        old, new = (np.asarray(x, np.float64)[0] for x in logits)
        weight, advantage = (np.asarray(x, np.float64)[0] for x in (samples.weight, samples.advantage))
        advantage = (advantage - np.average(advantage, weights=weight)) / np.sqrt(np.cov(advantage, aweights=weight, ddof=0))  # fmt: skip
        taken = (np.arange(len(weight)), np.asarray(samples.action)[0])
        kl = np.average((np.exp(old) * (old - new)).sum(-1), weights=weight)
        gain = np.average((np.exp(new[taken] - old[taken]) - 1.0) * advantage, weights=weight)
        outcomes.append(bool(report.metrics["accepted"]))
        if outcomes[-1]:
            assert 0 < kl <= 0.3 * (1 + 1e-3) and gain > 0
            np.testing.assert_allclose(report.metrics["kl"], kl, rtol=1e-3)
        else:
            same = jax.tree.map(lambda a, b: (a == b).all(), (before.actor, before.policy), (run.state.net.actor, run.state.net.policy))  # fmt: skip
            assert all(jax.tree.leaves(same))
        assert (before.value.bias != run.state.net.value.bias).all()
    assert {*outcomes} == {True, False}, f"{sum(outcomes)} of {len(outcomes)} were accepted"


def test_the_natural_step_costs_what_it_should():
    """So small a step that the quadratic form is exact: `½ xᵀ (F + λ) x = δ`, of which the KL divergence is the part with F."""
    agent = over(NPG(delta=1e-4, damping=0.01, torso=Auto((4,)), streams=4, length=32, solver_steps=40, normalise_advantage=False), 100)  # fmt: skip
    env = Vectorised(CartPole(), 4)
    run = fused.init(agent, env, jax.random.key(0))

    @jax.jit
    def improved(state, factor: float):
        _, unroll = rollout(agent, agent.policy(state), env, run.sim, 32, jnp.int32(0), jax.random.key(1))
        _, samples = agent.samples(state, unroll, None, policy=True)
        samples = dataclasses.replace(samples, advantage=factor * samples.advantage)
        net, metrics, finite = agent.improved(state.net, samples, None)
        moved, weights = (ravel_pytree(n)[0] for n in (net, state.net))
        return metrics["kl"], jnp.sum(jnp.square(moved - weights)), finite, jnp.all(moved == weights)

    kl, far, finite, still = improved(run.state, 1.0)
    np.testing.assert_allclose(kl + 0.5 * 0.01 * far, 1e-4, rtol=0.02)
    assert finite and not still and kl > 1e-5
    *_, finite, still = improved(run.state, 0.0)
    assert finite and still, "nowhere to go"
    for factor in (float("nan"), 1e30):
        *_, finite, still = improved(run.state, factor)
        assert not finite and still, factor


def test_every_other_sequence_is_left_out_with_its_memory():
    thin = few(True).thinned(2)
    assert (thin.x == few(True).x[:, ::2]).all() and thin.memory[0].tolist() == [0, 2]


def test_what_makes_no_trust_region_is_refused():
    for cls, settings, message in (
        (TRPO, {"delta": 0.0}, "trpo: delta must be positive, not 0"),
        (NPG, {"delta": -1.0}, "npg: delta must be positive, not -1"),
        (TRPO, {"damping": -0.1}, "trpo: damping must not be negative, and is -0.1"),
        (TRPO, {"shrink": 1.0}, r"trpo: shrink lies in \(0, 1\), not 1"),
        (TRPO, {"tries": 0}, "trpo: tries must be positive, not 0"),
        (TRPO, {"solver_steps": 0}, "trpo: solver_steps must be positive, not 0"),
        (NPG, {"thin": 0}, "npg: thin must be positive, not 0"),
        (TRPO, {"shared": True}, "trpo: a natural step of a shared trunk would move the value too"),
        (TRPO, {"minibatches": 7}, "trpo: 7 minibatches do not divide 2048 steps"),
    ):
        with pytest.raises(YozhError, match=message):
            cls(**settings)
