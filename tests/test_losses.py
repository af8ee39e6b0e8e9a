"""Losses against their formulas as printed (float64 loops), against rlax, and their properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import given, settings
from hypothesis import strategies as st

from yozh import losses

CLOSE = dict(rtol=1e-5, atol=1e-5)
SHAPE = (4, 5)


def draw(seed, *shape):
    x = np.random.default_rng(seed).normal(size=shape or SHAPE)
    return x, jnp.asarray(x, jnp.float32)


def check(got, formula, *arrays):
    """`formula` of the scalars at every place."""
    assert got.shape == arrays[0].shape and got.dtype == jnp.float32
    for i in np.ndindex(arrays[0].shape):
        np.testing.assert_allclose(got[i], formula(*(x[i] for x in arrays)), **CLOSE, err_msg=str(i))


def huber(e, delta):
    return 0.5 * e**2 if abs(e) <= delta else delta * (abs(e) - 0.5 * delta)


def test_weighted_mean():
    x, jx = draw(0)
    w = (np.random.default_rng(1).random(SHAPE) < 0.5).astype(np.float64)
    kept = [x[i] for i in np.ndindex(SHAPE) if w[i]]
    np.testing.assert_allclose(losses.weighted_mean(jx, jnp.asarray(w, jnp.float32)), np.mean(kept), **CLOSE)
    assert losses.weighted_mean(jx, jnp.zeros(SHAPE)) == 0


@pytest.mark.parametrize("n", [1, 3, 300])
def test_select_and_its_gradient(n):
    x, jx = draw(0, *SHAPE, n)
    a = np.random.default_rng(1).integers(0, n, SHAPE)
    check(losses.select(jx, jnp.asarray(a, jnp.int32)), lambda i, *v: v[i], a, *np.moveaxis(x, -1, 0))
    gradient = jax.grad(lambda x: losses.select(x, jnp.asarray(a, jnp.int32)).sum())(jx)
    np.testing.assert_array_equal(gradient, np.eye(n)[a])


def test_select_ignores_infinite_others():
    assert losses.select(jnp.array([2.0, -jnp.inf]), jnp.array(0)) == 2


def test_policy_gradient(lenient):
    log_prob, advantage = draw(0), draw(1)
    check(losses.policy_gradient(log_prob[1], advantage[1]), lambda lp, a: -lp * a, log_prob[0], advantage[0])
    # through the softmax: the loss falls where the good action becomes likelier
    gradient = jax.grad(lambda x: losses.policy_gradient(jax.nn.log_softmax(x)[0], jnp.asarray(2.0)))(jnp.zeros(2))
    np.testing.assert_allclose(gradient, [-1, 1], **CLOSE)
    logits, action = draw(2, 6, 3)[1], jnp.arange(6) % 3
    theirs = rlax.policy_gradient_loss(logits, action, advantage[1][0, :1].repeat(6), jnp.ones(6))
    ours = losses.policy_gradient(losses.select(jax.nn.log_softmax(logits), action), advantage[1][0, :1].repeat(6))
    np.testing.assert_allclose(ours.mean(), theirs, **CLOSE)


def test_ppo_clip(lenient):
    ratio, advantage = np.exp(draw(0)[0]), draw(1)[0]
    r, a = jnp.asarray(ratio, jnp.float32), jnp.asarray(advantage, jnp.float32)

    def formula(r, a):
        return -min(r * a, (1.2 if r > 1.2 else 0.8 if r < 0.8 else r) * a)

    got = losses.ppo_clip(r, a, jnp.asarray(0.2))
    check(got, formula, ratio, advantage)
    np.testing.assert_allclose(got[0].mean(), rlax.clipped_surrogate_pg_loss(r[0], a[0], 0.2), **CLOSE)


@pytest.mark.parametrize(
    "ratio, advantage, pull", [(1.3, 1, 0), (1.1, 1, -1), (0.7, 1, -1), (0.7, -1, 0), (0.9, -1, 1), (1.3, -1, 1)]
)
def test_ppo_clip_pulls_only_towards_the_old_policy(ratio, advantage, pull):
    slope = jax.grad(losses.ppo_clip)(jnp.asarray(ratio), jnp.asarray(float(advantage)), 0.2)
    assert slope == pull


def test_kl_estimates_are_unbiased():
    old, new = (np.exp(x) / np.exp(x).sum() for x in draw(0, 2, 6)[0])
    log_ratio = jnp.asarray(np.log(new / old), jnp.float32)
    kl = sum(p * np.log(p / q) for p, q in zip(old, new, strict=True))
    k1, k3 = losses.kl_k1(log_ratio), losses.kl_k3(log_ratio)
    check(k1, lambda p, q: -np.log(q / p), old, new)
    check(k3, lambda p, q: (q / p - 1) - np.log(q / p), old, new)
    np.testing.assert_allclose([old @ k1, old @ k3], kl, **CLOSE)
    assert (k3 >= 0).all() and (k1 < 0).any()


@pytest.mark.parametrize("delta", [0.3, 1.0])
def test_squared_and_huber(delta, lenient):
    (v, jv), (t, jt) = draw(0), draw(1)
    check(losses.squared(jv, jt), lambda v, t: 0.5 * (v - t) ** 2, v, t)
    check(losses.huber(jv, jt, delta), lambda v, t: huber(t - v, delta), v, t)
    np.testing.assert_allclose(losses.huber(jv, jt, delta), rlax.huber_loss(jv - jt, delta), **CLOSE)
    np.testing.assert_allclose(losses.huber(jv, jt, 1e6), losses.squared(jv, jt), **CLOSE)
    np.testing.assert_allclose(jax.grad(losses.huber)(jnp.asarray(0.0), jnp.asarray(5.0), delta), -delta, **CLOSE)


def test_clipped_value():
    (v, jv), (old, jold), (target, jt) = draw(0), draw(1), draw(2)

    def formula(v, old, target):
        near = old + min(max(v - old, -0.2), 0.2)
        return 0.5 * max((v - target) ** 2, (near - target) ** 2)

    check(losses.clipped_value(jv, jold, jt, 0.2), formula, v, old, target)


def test_q_targets(lenient):
    (r, jr), (selector, js), (value, jq) = draw(0), draw(1, *SHAPE, 3), draw(2, *SHAPE, 3)
    g = np.where(np.random.default_rng(3).random(SHAPE) < 0.3, 0.0, 0.9)
    jg = jnp.asarray(g, jnp.float32)
    columns = [*np.moveaxis(selector, -1, 0), *np.moveaxis(value, -1, 0)]
    single, double = losses.q_target(jr, jg, jq), losses.double_q_target(jr, jg, js, jq)
    check(single, lambda r, g, *q: r + g * max(q[3:]), r, g, *columns)
    check(double, lambda r, g, *q: r + g * q[3 + int(np.argmax(q[:3]))], r, g, *columns)
    nothing, zero = jnp.zeros(3), jnp.array(0)
    theirs = jax.vmap(lambda r, g, v, s: rlax.double_q_learning(nothing, zero, r, g, v, s))
    np.testing.assert_allclose(double[0], theirs(jr[0], jg[0], jq[0], js[0]), **CLOSE)


def project(support, p, r, g):
    """Algorithm 1, and the whole mass to the atom that is hit exactly, which the printed one loses."""
    n = len(support)
    m, dz = np.zeros(n), (support[-1] - support[0]) / (n - 1)
    for j in range(n):
        b = (min(max(r + g * support[j], support[0]), support[-1]) - support[0]) / dz
        lower, upper = int(np.floor(b)), int(np.ceil(b))
        if lower == upper:
            m[lower] += p[j]
        else:
            m[lower] += p[j] * (upper - b)
            m[upper] += p[j] * (b - lower)
    return m


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_project_categorical(lenient, backend: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    support = np.linspace(-2, 3, 11)
    p = np.random.default_rng(0).dirichlet(np.ones(11), SHAPE)
    r, g = 2 * draw(1)[0], np.where(np.random.default_rng(2).random(SHAPE) < 0.3, 0.0, 0.9)
    jz, jp, jr, jg = (jnp.asarray(x, jnp.float32) for x in (support, p, r, g))
    got = losses.project_categorical(jz, jp, jr, jg)
    for i in np.ndindex(SHAPE):
        np.testing.assert_allclose(got[i], project(support, p[i], r[i], g[i]), **CLOSE)
    theirs = rlax.categorical_l2_project(jr[0, 0] + jg[0, 0] * jz, jp[0, 0], jz)
    np.testing.assert_allclose(got[0, 0], theirs, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(st.floats(-30, 30, width=32), st.floats(0, 1, width=32), st.integers(0, 99))
def test_projection_keeps_mass_and_mean(reward, discount, seed):
    support = jnp.linspace(-10, 10, 51)
    p = jnp.asarray(np.random.default_rng(seed).dirichlet(np.full(51, 0.2)), jnp.float32)
    m = losses.project_categorical(support, p, jnp.asarray(reward), jnp.asarray(discount))
    assert abs(float(m.sum() - p.sum())) < 1e-6 and (m >= 0).all()
    inside = np.clip(reward + discount * np.asarray(support, np.float64), -10, 10)
    np.testing.assert_allclose(support @ m, inside @ np.asarray(p, np.float64), atol=2e-5)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_quantile_huber(lenient, backend: str, monkeypatch: pytest.MonkeyPatch):
    """And its gradient, by rlax, with either way to compute them."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    n, k = 4, 6
    (theta, jtheta), (target, jtarget) = draw(0, *SHAPE, n), draw(1, *SHAPE, k)
    tau = np.random.default_rng(2).random((*SHAPE, n))
    jtau = jnp.asarray(tau, jnp.float32)
    got = losses.quantile_huber(jtheta, jtarget, jtau, 0.7)
    for i in np.ndindex(SHAPE):
        total = 0.0
        for a in range(n):
            for b in range(k):
                u = target[i][b] - theta[i][a]
                total += abs(tau[i][a] - (u < 0)) * huber(u, 0.7) / k
        np.testing.assert_allclose(got[i], total, **CLOSE)
        theirs = rlax.quantile_regression_loss(jtheta[i], jtau[i], jtarget[i], 0.7)
        np.testing.assert_allclose(got[i], theirs, **CLOSE)
        slope = jax.grad(rlax.quantile_regression_loss)(jtheta[i], jtau[i], jtarget[i], 0.7)
        mine = jax.grad(losses.quantile_huber)(jtheta[i], jtarget[i], jtau[i], 0.7)
        np.testing.assert_allclose(mine, slope, **CLOSE)
    chance = jax.nn.softmax(jtarget)
    twice = losses.quantile_huber(
        jtheta, jnp.concatenate([jtarget, jtarget], -1), jtau, 0.7, jnp.concatenate([chance, 0 * chance], -1)
    )
    np.testing.assert_allclose(losses.quantile_huber(jtheta, jtarget, jtau, 0.7, chance), twice, **CLOSE)
    assert not np.allclose(twice, got)


def test_quantile_huber_finds_quantiles():
    """A small kappa is quantile regression: the minimum lies at the quantiles of the targets."""
    target = jnp.asarray(np.sort(np.random.default_rng(0).exponential(size=400)), jnp.float32)
    tau = jnp.array([0.1, 0.5, 0.9])

    def turn(i, q):
        return q - 300 / (1 + i / 100) * jax.grad(losses.quantile_huber)(q, target, tau, 1e-3)

    got = jax.jit(lambda q: jax.lax.fori_loop(0, 2000, turn, q))(jnp.zeros(3))
    np.testing.assert_allclose(got, np.quantile(target, tau), atol=0.03)


def test_jit_and_vmap():
    x, y, z = (jnp.exp(draw(i)[1]) for i in range(3))
    support, p, q = jnp.linspace(-1.0, 1.0, 3), draw(3, *SHAPE, 3)[1], draw(4, *SHAPE, 3)[1]
    calls = [
        (losses.policy_gradient, (x, y)),
        (lambda a, b: losses.ppo_clip(a, b, 0.2), (x, y)),
        (losses.kl_k1, (x,)),
        (losses.kl_k3, (x,)),
        (losses.squared, (x, y)),
        (lambda a, b: losses.huber(a, b, 1.0), (x, y)),
        (lambda a, b, c: losses.clipped_value(a, b, c, 0.2), (x, y, z)),
        (losses.q_target, (x, y, p)),
        (losses.double_q_target, (x, y, p, q)),
        (lambda p, r, g: losses.project_categorical(support, p, r, g), (p, x, y)),
        (losses.quantile_huber, (p, q, jnp.abs(p))),
    ]
    for f, arguments in calls:
        np.testing.assert_allclose(jax.jit(jax.vmap(f))(*arguments), f(*arguments), **CLOSE)


def test_a_linear_baseline_of_the_action():
    """Q-Prop's: by finite differences of the critic, and exact where the critic is linear."""
    centre = jnp.array([[0.3, -0.2], [1.0, 0.5], [-0.4, 0.0]])
    action = jnp.array([[0.5, 0.1], [0.0, 2.0], [-1.0, 1.0]])

    def q(a: jax.Array) -> jax.Array:
        return jnp.sin(a[:, 0]) * a[:, 1] ** 2

    baseline, slopes = losses.linear_baseline(q, action, centre)
    for i in range(3):
        (x, y), off = np.asarray(centre[i], np.float64), np.asarray(action[i] - centre[i], np.float64)
        slope = np.array([np.cos(x) * y**2, 2 * np.sin(x) * y])
        np.testing.assert_allclose(baseline[i], slope @ off, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(slopes[i], slope, rtol=1e-4, atol=1e-6)
    still = jax.grad(lambda m: sum(jnp.sum(x) for x in losses.linear_baseline(q, action, m)))(centre)
    assert (still == 0).all()
