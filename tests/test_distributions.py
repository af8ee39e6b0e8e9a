"""Distributions against counting, integration and closed forms."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from yozh.core import YozhError
from yozh.distributions import Bernoulli, Categorical, Factored, Normal, TanhNormal, masked

CLOSE = dict(rtol=1e-5, atol=1e-5)
DRAWS = 20_000
KEY = jax.random.key(7)


def rows(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def every(ns, dtype):
    return jnp.asarray(list(itertools.product(*map(range, ns))), dtype)


# two of each, all their actions, and the probability of each action multiplied out by hand
def softmax(x):
    e = np.exp(np.asarray(x, np.float64))
    return e / e.sum()


def factored_table(logits):
    return [a * b for a in softmax(logits[:2]) for b in softmax(logits[2:])]


def bernoulli_table(logits):
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    return [np.prod([q if bit else 1 - q for q, bit in zip(p, bits, strict=True)]) for bits in np.ndindex(2, 2, 2)]


FINITE = {
    "categorical": (Categorical, 4, jnp.arange(4), softmax),
    "factored": (lambda x: Factored(x, (2, 3)), 5, every((2, 3), jnp.int32), factored_table),
    "bernoulli": (Bernoulli, 3, every((2, 2, 2), jnp.int8), bernoulli_table),
}
finite = pytest.mark.parametrize("name", FINITE)


def build(name, seed, *lead):
    make, n, actions, table = FINITE[name]
    logits = rows(seed, *lead, n)
    return make(logits), actions, np.array(table(logits)) if not lead else None


def at_all(d, actions):
    return jax.vmap(d.log_prob)(actions)


@finite
def test_finite_log_prob_entropy_mode_kl(name):
    (d, actions, p), (other, _, q) = build(name, 0), build(name, 1)
    np.testing.assert_allclose(np.exp(at_all(d, actions)), p, **CLOSE)
    np.testing.assert_allclose(d.entropy(), -(p * np.log(p)).sum(), **CLOSE)
    np.testing.assert_allclose(d.kl(other), (p * np.log(p / q)).sum(), **CLOSE)
    np.testing.assert_array_equal(d.mode(), actions[p.argmax()])
    assert d.mode().dtype == actions.dtype


@finite
def test_finite_samples_come_as_often_as_they_should(name):
    d, actions, p = build(name, 0)
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (DRAWS, *x.shape)), d)
    samples, log_prob = jax.jit(lambda d, key: d.sample_and_log_prob(key))(many, KEY)
    assert samples.dtype == actions.dtype and samples.shape == (DRAWS, *actions.shape[1:])
    np.testing.assert_allclose(log_prob, many.log_prob(samples), **CLOSE)
    same = np.asarray(samples)[:, None] == np.asarray(actions)[None]
    counts = same.reshape(DRAWS, len(actions), -1).all(-1).sum(0)
    assert counts.sum() == DRAWS
    assert stats.chisquare(counts, DRAWS * p / p.sum()).pvalue > 0.01


def test_gradient_of_the_mean_log_prob_is_zero():
    """The score has mean 0 under the distribution itself."""
    for name in FINITE:
        d, actions, p = build(name, 0)
        score = eqx.filter_jit(eqx.filter_jacrev(at_all))(d, actions).logits
        np.testing.assert_allclose(jnp.asarray(p, jnp.float32) @ score, 0, atol=1e-6)


def test_categorical_far_logits_stay_finite():
    d = Categorical(jnp.array([1e4, 0.0, -1e4]))
    assert d.entropy() == 0 and d.log_prob(jnp.array(1)) == -1e4


def test_bernoulli_far_logits_stay_finite():
    d = Bernoulli(jnp.array([200.0, -200.0]))
    assert d.log_prob(jnp.array([0, 1], jnp.int8)) == -400 and d.log_prob(jnp.array([1, 0], jnp.int8)) == 0
    assert np.isfinite(d.entropy()) and np.isfinite(jax.grad(lambda x: Bernoulli(x).entropy())(d.logits)).all()


def test_factored_counts_its_logits():
    with pytest.raises(YozhError, match="5 logits"):
        Factored(jnp.zeros(5), (2, 4))


LEGAL = jnp.array([True, False, True, True, False])


def test_masked_equals_the_legal_choices_alone():
    logits = rows(0, 5) + jnp.array([0.0, 50.0, 0.0, 0.0, 50.0])
    d, alone = Categorical(masked(logits, LEGAL)), Categorical(logits[LEGAL])
    np.testing.assert_array_equal(jnp.exp(d.log_probs)[~LEGAL], 0)
    np.testing.assert_allclose(d.log_probs[LEGAL], alone.log_probs, **CLOSE)
    np.testing.assert_allclose(d.entropy(), alone.entropy(), **CLOSE)
    np.testing.assert_allclose(d.kl(Categorical(masked(jnp.zeros(5), LEGAL))), np.log(3) - alone.entropy(), **CLOSE)
    samples = jax.vmap(d.sample)(jax.random.split(KEY, 2000))
    assert set(np.unique(samples)) == {0, 2, 3} and LEGAL[d.mode()]


@pytest.mark.parametrize("legal", [LEGAL, jnp.zeros(5, bool)])
def test_masked_gradients_are_finite_and_zero_for_the_illegal(legal):
    def loss(x):
        d = Categorical(masked(x, legal))
        return d.entropy() + d.log_prob(jnp.array(2)) + d.kl(Categorical(masked(2 * x, legal)))

    value, gradient = jax.value_and_grad(loss)(rows(0, 5))
    assert np.isfinite(value) and np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[~legal], 0)
    assert (gradient[legal] != 0).all()


def test_masked_without_a_legal_action_is_uniform():
    d = Categorical(masked(rows(0, 2, 5), jnp.zeros((2, 5), bool)))
    np.testing.assert_allclose(d.log_probs, -np.log(5), **CLOSE)
    np.testing.assert_allclose(d.entropy(), np.log(5), **CLOSE)


CONTINUOUS = {
    "normal": lambda m, s: Normal(m, s),
    "tanh": lambda m, s: TanhNormal(m, s, -1.5, 4.0),
}
continuous = pytest.mark.parametrize("name", CONTINUOUS)


def scalar(name, mean, log_std):
    return CONTINUOUS[name](jnp.array([mean]), jnp.array([log_std]))


def density(d):
    """`(a, p(a) da)` on a fine grid over all that matters."""
    u = np.linspace(-9, 9, 40_001) * float(jnp.exp(d.log_std)[0]) + float(d.mean[0])
    a = u if isinstance(d, Normal) else 1.25 + 2.75 * np.tanh(u)
    da = np.gradient(u) * (1 if isinstance(d, Normal) else 2.75 / np.cosh(u) ** 2)
    return jnp.asarray(a, jnp.float32)[:, None], da


@continuous
@pytest.mark.parametrize("mean, log_std", [(0.3, -0.5), (-1.0, 0.0)])
def test_continuous_log_prob_entropy_kl(name, mean, log_std):
    d, other = scalar(name, mean, log_std), scalar(name, 0.1, 0.2)
    a, da = density(d)
    log_p, log_q = (np.asarray(at_all(x, a), np.float64) for x in (d, other))
    p = np.exp(log_p) * da
    np.testing.assert_allclose(p.sum(), 1, atol=1e-4)
    np.testing.assert_allclose(d.entropy(), -(p * log_p).sum(), atol=5e-4)
    np.testing.assert_allclose(d.kl(other), (p * (log_p - log_q)).sum(), atol=5e-4)


@continuous
def test_continuous_samples_have_the_density(name):
    d = scalar(name, 0.4, -0.3)
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (DRAWS, 1)), d)
    samples, log_prob = jax.jit(lambda d, key: d.sample_and_log_prob(key))(many, KEY)
    np.testing.assert_allclose(samples, many.sample(KEY), **CLOSE)
    np.testing.assert_allclose(log_prob, many.log_prob(samples), atol=1e-3)
    u = np.asarray(samples)[:, 0] if name == "normal" else np.arctanh((np.asarray(samples)[:, 0] - 1.25) / 2.75)
    assert stats.kstest(u, stats.norm(0.4, np.exp(-0.3)).cdf).pvalue > 0.01
    np.testing.assert_allclose(-log_prob.mean(), d.entropy(), atol=0.02)


@continuous
def test_components_are_independent_and_summed(name):
    def parts(d):
        return jax.tree.map(lambda x: x[:, None], d)

    d, other = (CONTINUOUS[name](rows(i, 3), 0.3 * rows(i + 1, 3)) for i in (0, 2))
    a = d.sample(KEY)
    np.testing.assert_allclose(d.log_prob(a), parts(d).log_prob(a[:, None]).sum(), **CLOSE)
    np.testing.assert_allclose(d.entropy(), parts(d).entropy().sum(), **CLOSE)
    np.testing.assert_allclose(d.kl(other), parts(d).kl(parts(other)).sum(), **CLOSE)
    samples = jax.vmap(d.sample)(jax.random.split(KEY, 4000))
    assert np.abs(np.corrcoef(samples.T) - np.eye(3)).max() < 0.05


def test_normal_against_scipy():
    d, a = Normal(rows(0, 4, 3), rows(1, 4, 3)), rows(2, 4, 3)
    theirs = stats.norm(d.mean, np.exp(d.log_std))
    np.testing.assert_allclose(d.log_prob(a), theirs.logpdf(a).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(d.entropy(), theirs.entropy().sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(d.mode(), d.mean)


def test_samples_follow_their_parameters():
    """Pathwise gradients: one for the mean, the noise itself for the spread."""
    mean, log_std = rows(0, 3), rows(1, 3)
    by_mean, by_spread = jax.jacobian(lambda m, s: Normal(m, s).sample(KEY), (0, 1))(mean, log_std)
    np.testing.assert_allclose(by_mean, np.eye(3), **CLOSE)
    np.testing.assert_allclose(np.diag(by_spread), Normal(mean, log_std).sample(KEY) - mean, **CLOSE)
    gradient = jax.grad(lambda m: TanhNormal(m, log_std).sample_and_log_prob(KEY)[1])(mean)
    u = Normal(mean, log_std).sample(KEY)
    np.testing.assert_allclose(gradient, 2 * np.tanh(u), rtol=1e-4, atol=1e-5)


def test_tanh_normal_bounds_per_component():
    low, high = (-1.0, -0.1, 5.0), (1.0, 0.3, 6.0)
    d = TanhNormal(jnp.zeros((1000, 3)), jnp.full((1000, 3), 2.0), low, high)
    a = np.asarray(d.sample(KEY))
    low, high = np.float32(low), np.float32(high)
    assert (a >= low).all() and (a <= high).all()
    np.testing.assert_allclose(a.min(0), low, atol=1e-3)
    np.testing.assert_allclose(a.max(0), high, atol=1e-3)
    np.testing.assert_allclose(d.mode()[0], (low + high) / 2, **CLOSE)


@pytest.mark.parametrize("mean", [-30.0, 30.0])
def test_tanh_normal_far_out_stays_finite(mean):
    def both(m):
        d = TanhNormal(m, jnp.zeros(1))
        a, log_prob = d.sample_and_log_prob(KEY)
        return log_prob + d.log_prob(a) + d.entropy()

    value, gradient = jax.value_and_grad(both)(jnp.array([mean]))
    assert np.isfinite(value) and np.isfinite(gradient).all()
    d = TanhNormal(jnp.array([mean]), jnp.zeros(1))
    # log p = log N(u) + 2|u| - 2 log 2 where tanh has long saturated
    u = Normal(d.mean, d.log_std).sample(KEY)
    expected = stats.norm(mean).logpdf(u)[0] + 2 * abs(float(u[0])) - 2 * np.log(2)
    np.testing.assert_allclose(d.sample_and_log_prob(KEY)[1], expected, rtol=1e-5)


def lead(name, *shape):
    return (
        build(name, 0, *shape)[0] if name in FINITE else CONTINUOUS[name](rows(0, *shape, 3), 0.3 * rows(1, *shape, 3))
    )


@pytest.mark.parametrize("name", [*FINITE, *CONTINUOUS])
def test_leading_axes_jit_and_vmap(name):
    d = lead(name, 2, 4)
    action = d.sample(KEY)
    assert action.shape[:2] == (2, 4) and d.mode().shape == action.shape and d.mode().dtype == action.dtype

    def answers(d, action):
        return d.log_prob(action), d.entropy(), d.kl(jax.tree.map(lambda x: 0.5 * x, d)), d.mode()

    flat = answers(d, action)
    assert all(x.shape == (2, 4) for x in flat[:3])
    nested = jax.jit(jax.vmap(jax.vmap(answers)))(d, action)
    for a, b in zip(flat, nested, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
