"""Estimators against their formulas as printed, against rlax, and against values known beforehand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from hypothesis import given, settings
from hypothesis import strategies as st

from yozh import returns
from yozh.core import TimeStep, Unroll
from yozh.losses import weighted_mean

GAMMA, LAM = 0.9, 0.8
CLOSE = dict(rtol=1e-5, atol=1e-5)


def make_unroll(reward, discount, first, last):
    """An unroll of `[T+1, B]` boundaries; what is no boundary is left out."""
    b = reward.shape[1]
    step = TimeStep(
        jnp.zeros(()),
        jnp.asarray(reward, jnp.float32),
        jnp.asarray(discount, jnp.float32),
        jnp.asarray(first),
        jnp.asarray(last),
    )
    return Unroll(step, (), (), (), jnp.zeros(b, jnp.int32), jnp.ones(b))


def random_unroll(seed, t=24, b=3, end=0.25):
    """Random rewards and episodes, terminated or truncated, under next-step auto-reset."""
    rng = np.random.default_rng(seed)
    reward, discount = rng.normal(size=(t + 1, b)), np.ones((t + 1, b))
    first, last = np.zeros((t + 1, b), bool), np.zeros((t + 1, b), bool)
    for i in range(t + 1):
        for j in range(b):
            if i and last[i - 1, j]:
                first[i, j], reward[i, j] = True, 0.0
            elif rng.random() < end:
                last[i, j], discount[i, j] = True, float(rng.random() < 0.5)
    return make_unroll(reward, discount, first, last)


class Problem:
    """One random unroll with values and ratios: as float32 for the library, as float64 for the formulas."""

    def __init__(self, seed, t=24, b=3):
        rng = np.random.default_rng(seed + 1000)
        self.u = random_unroll(seed, t, b)
        self.t, self.b = t, b
        self.value = rng.normal(size=(t + 1, b))
        self.q = rng.normal(size=(t, b))
        self.ratio = np.exp(rng.normal(size=(t, b)))
        step = self.u.step
        self.r, self.d, self.last = (np.asarray(x, np.float64) for x in (step.reward, step.discount, step.last))
        self.r, self.g = self.r[1:], GAMMA * self.d[1:]

    def j(self, x):
        return jnp.asarray(x, jnp.float32)

    def segment(self, lam=LAM):
        return returns.segment(self.u, jnp.asarray(GAMMA), jnp.asarray(lam))[:3]

    @property
    def values(self):
        return self.j(self.value[:-1]), self.j(self.value[1:])

    def end(self, t, j):
        """The last transition of the episode that transition t belongs to, or of the unroll."""
        while t < self.t - 1 and not self.last[t + 1, j]:
            t += 1
        return t

    def check(self, got, formula):
        """`formula(t, j)` at every transition that counts."""
        for t in range(self.t):
            for j in range(self.b):
                if not self.last[t, j]:
                    np.testing.assert_allclose(got[t, j], formula(t, j), **CLOSE, err_msg=f"at {t}, {j}")

    def n_step(self, t, j, n):
        """The printed n-step return, no further than the episode or the unroll."""
        total, weight = 0.0, 1.0
        for k in range(t, min(t + n - 1, self.end(t, j)) + 1):
            total += weight * self.r[k, j]
            weight *= self.g[k, j]
        return total + weight * self.value[k + 1, j]

    def delta(self, k, j, left):
        return self.r[k, j] + self.g[k, j] * self.value[k + 1, j] - left[k, j]


seeds = pytest.mark.parametrize("seed", [0, 1])


def test_segment_as_written_out():
    # an episode of two transitions that is truncated, its reset, one transition that terminates, its reset
    reward, discount = np.array([[9.0, 1, 2, 0, 3, 0]]).T, np.array([[1.0, 1, 1, 1, 0, 1]]).T
    first, last = np.array([[1, 0, 0, 1, 0, 1]], bool).T, np.array([[0, 0, 1, 0, 1, 0]], bool).T
    s = returns.segment(make_unroll(reward, discount, first, last), 0.5, 0.25)
    np.testing.assert_array_equal(s.reward_t[:, 0], [1, 2, 0, 3, 0])
    np.testing.assert_array_equal(s.discount_t[:, 0], [0.5, 0.5, 0.5, 0, 0.5])
    np.testing.assert_array_equal(s.lambda_t[:, 0], [0.25, 0, 0.25, 0, 0.25])
    np.testing.assert_array_equal(s.weight_tm1[:, 0], [1, 1, 0, 1, 0])


@seeds
def test_td_error(seed):
    p = Problem(seed)
    r, g, _ = p.segment()
    p.check(returns.td_error(r, g, *p.values), lambda t, j: p.delta(t, j, p.value))


@seeds
def test_discounted_return(seed):
    p = Problem(seed)

    def formula(t, j):
        total, weight = 0.0, 1.0
        for k in range(t, p.t):
            total += weight * p.r[k, j]
            weight *= p.g[k, j]
        return total + weight * p.value[-1, j]

    r, g, _ = p.segment()
    p.check(returns.discounted_return(r, g, p.j(p.value[-1])), formula)


@seeds
def test_reward_to_go(seed):
    p = Problem(seed)

    def formula(t, j):
        return sum(GAMMA ** (k - t) * p.r[k, j] for k in range(t, p.end(t, j) + 1))

    p.check(returns.reward_to_go(*p.segment(1.0)), formula)


@seeds
@pytest.mark.parametrize("n", [1, 2, 3, 5, 24, 99])
def test_n_step_return(seed, n):
    p = Problem(seed)
    p.check(returns.n_step_return(*p.segment(1.0), p.values[1], n), lambda t, j: p.n_step(t, j, n))


@seeds
def test_lambda_return_is_the_forward_view(seed):
    p = Problem(seed)

    def formula(t, j):
        longest = p.end(t, j) - t + 1
        mixed = sum((1 - LAM) * LAM ** (n - 1) * p.n_step(t, j, n) for n in range(1, longest))
        return mixed + LAM ** (longest - 1) * p.n_step(t, j, longest)

    p.check(returns.lambda_return(*p.segment(), p.values[1]), formula)


@seeds
def test_gae(seed):
    p = Problem(seed)

    def formula(t, j):
        total, weight = 0.0, 1.0
        for k in range(t, p.end(t, j) + 1):
            total += weight * p.delta(k, j, p.value)
            weight *= p.g[k, j] * LAM
        return total

    p.check(returns.gae(*p.segment(), *p.values), formula)


@seeds
@pytest.mark.parametrize("rho_clip, c_clip", [(1.0, 1.0), (2.0, 0.7)])
def test_vtrace(seed, rho_clip, c_clip):
    p = Problem(seed)

    def target(s, j):
        total, weight = p.value[s, j], 1.0
        for t in range(s, p.end(s, j) + 1):
            rho = min(rho_clip, p.ratio[t, j])
            total += weight * rho * p.delta(t, j, p.value)
            weight *= p.g[t, j] * LAM * min(c_clip, p.ratio[t, j])
        return total

    def advantage(s, j):
        after = p.value[s + 1, j]
        if s < p.end(s, j):
            after = (1 - LAM) * after + LAM * target(s + 1, j)
        return min(rho_clip, p.ratio[s, j]) * (p.r[s, j] + p.g[s, j] * after - p.value[s, j])

    got = returns.vtrace(*p.segment(), *p.values, p.j(p.ratio), rho_clip, c_clip)
    p.check(got.target, target)
    p.check(got.advantage, advantage)
    p.check(got.rho, lambda s, j: min(rho_clip, p.ratio[s, j]))


@seeds
def test_retrace(seed):
    p = Problem(seed)

    def formula(s, j):
        total, weight = p.q[s, j], 1.0
        for t in range(s, p.end(s, j) + 1):
            if t > s:
                weight *= p.g[t - 1, j] * LAM * min(1, p.ratio[t, j])
            total += weight * p.delta(t, j, p.q)
        return total

    p.check(returns.retrace(*p.segment(), p.j(p.q), p.values[1], p.j(p.ratio)), formula)


@seeds
def test_against_rlax(seed, lenient):
    rng = np.random.default_rng(seed)
    t = 15
    r, v, q = (jnp.asarray(x, jnp.float32) for x in rng.normal(size=(3, t)))
    g, lam = (jnp.asarray(x, jnp.float32) for x in rng.random(size=(2, t)))
    values = jnp.asarray(rng.normal(size=t + 1), jnp.float32)
    ratio = jnp.asarray(np.exp(rng.normal(size=t)), jnp.float32)
    left, right = values[:-1], values[1:]

    def same(a, b):
        np.testing.assert_allclose(a, b, **CLOSE)

    same(returns.discounted_return(r, g, v[-1]), rlax.discounted_returns(r, g, v[-1]))
    same(returns.lambda_return(r, g, lam, v), rlax.lambda_returns(r, g, v, lam))
    same(returns.gae(r, g, lam, left, right), rlax.truncated_generalized_advantage_estimation(r, g, lam, values))
    for n in (1, 3, 20):
        same(returns.n_step_return(r, g, lam, v, n), rlax.n_step_bootstrapped_returns(r, g, v, n, lam))
    ours = returns.vtrace(r, g, lam, left, right, ratio, 1.5)
    theirs = rlax.vtrace_td_error_and_advantage(left, right, r, g, ratio, lam, 1.5, 1.5)
    same(ours.target - left, theirs.errors)
    # rlax takes the next value from v_tm1, which is the same here
    same(ours.advantage, theirs.pg_advantage)
    c = lam[:-1] * jnp.minimum(1.0, ratio[1:])
    same(returns.retrace(r, g, lam, q, v, ratio), rlax.general_off_policy_returns_from_q_and_v(q[1:], v, r, g, c))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_gae_between_td_error_and_monte_carlo(seed):
    p = Problem(seed, t=8, b=2)
    r, g, zero = p.segment(0.0)
    one = p.segment(1.0)[2]
    left, right = p.values
    delta = returns.td_error(r, g, left, right)
    np.testing.assert_allclose(returns.gae(r, g, zero, left, right), delta, rtol=1e-6, atol=1e-6)
    monte_carlo = returns.n_step_return(r, g, one, right, 8)
    scale = float(jnp.abs(monte_carlo).max()) + 1
    np.testing.assert_allclose(returns.gae(r, g, one, left, right), monte_carlo - left, atol=1e-6 * scale)


@seeds
def test_vtrace_on_policy_is_the_n_step_return(seed):
    p = Problem(seed, t=8)
    r, g, lam = p.segment(1.0)
    got = returns.vtrace(r, g, lam, *p.values, jnp.ones_like(r))
    np.testing.assert_allclose(got.target, returns.n_step_return(r, g, lam, p.values[1], 8), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got.advantage, got.target - p.values[0], rtol=1e-6, atol=1e-6)


@seeds
def test_vtrace_without_clips_is_the_importance_sampled_return(seed):
    p = Problem(seed)

    def formula(s, j):
        return sum(
            GAMMA ** (t - s) * np.prod(p.ratio[s : t + 1, j]) * p.r[t, j] for t in range(s, p.end(s, j) + 1)
        )  # fmt: skip

    r, g, lam = p.segment(1.0)
    nothing = jnp.zeros_like(r)
    p.check(returns.vtrace(r, g, lam, nothing, nothing, p.j(p.ratio), jnp.inf, jnp.inf).target, formula)


@pytest.mark.parametrize(
    "truncation_is_termination, lam, value, within",
    [(False, 0.0, 100.0, 1.0), (False, 0.95, 100.0, 1.0), (True, 0.0, 9.17, 0.01)],
)
def test_endless_reward_under_a_time_limit(truncation_is_termination, lam, value, within):
    period = np.arange(23) % 11
    first, last = period == 0, period == 10
    discount = np.where(last & truncation_is_termination, 0.0, 1.0)
    u = make_unroll(np.where(first, 0.0, 1.0)[:, None], discount[:, None], first[:, None], last[:, None])
    s = returns.segment(u, 0.99, lam)

    def turn(_, v):
        here = jnp.full_like(s.reward_t, v)
        return v + weighted_mean(returns.gae(s.reward_t, s.discount_t, s.lambda_t, here, here), s.weight_tm1)

    assert abs(float(jax.lax.fori_loop(0, 1500, turn, jnp.zeros(()))) - value) < within


def two_state_mdp():
    """Every way that two decisions can go, each a stream, and its probability given the first state.

    Of the states 0 and 1, action 0 stays and action 1 leaves with probability .8; half of the episodes are truncated
    after the first decision, and the next one starts in either state.
    """
    mu, pi = np.array([[0.7, 0.3], [0.4, 0.6]]), np.array([[0.2, 0.8], [0.9, 0.1]])
    move = np.array([[[1, 0], [0.2, 0.8]], [[0, 1], [0.8, 0.2]]])
    pay = np.array([[0.0, 1.0], [2.0, -1.0]])
    rows = []
    for s0, a0, s1, a1, s2, cut in np.ndindex(2, 2, 2, 2, 2, 2):
        if cut:
            after = (0.5 if a1 == 0 else 0.0) * 0.5  # the ignored action has no say
            rows.append((s0, a0, s1, a1, s2, 1, mu[s0, a0] * move[s0, a0, s1] * after, pay[s0, a0], 0.0))
        else:
            p = mu[s0, a0] * move[s0, a0, s1] * 0.5 * mu[s1, a1] * move[s1, a1, s2]
            rows.append((s0, a0, s1, a1, s2, 0, p, pay[s0, a0], pay[s1, a1]))
    s0, a0, s1, a1, s2, cut, p, r0, r1 = (np.array(x) for x in zip(*rows, strict=True))
    no = np.zeros(len(p), bool)
    u = make_unroll(
        np.stack([0 * r0, r0, r1]), np.ones((3, len(p))), np.stack([no, no, cut == 1]), np.stack([no, cut == 1, no])
    )
    return mu, pi, move, pay, np.stack([s0, s1, s2]), np.stack([a0, a1]), jnp.asarray(p, jnp.float32), u


def exact_value(policy, move, pay, gamma=GAMMA):
    transition = np.einsum("sa,sat->st", policy, move)
    return np.linalg.solve(np.eye(2) - gamma * transition, (policy * pay).sum(-1))


@pytest.mark.parametrize("rho_clip", [1.0, 1e9])
def test_vtrace_fixed_point(rho_clip):
    """Espeholt et al. 2018, theorem 1: the value of `pi_rho ~ min(rho mu, pi)`, whatever is truncated, not of `pi`."""
    mu, pi, move, pay, s, a, p, u = two_state_mdp()
    assert np.allclose([p[s[0] == 0].sum(), p[s[0] == 1].sum()], 1, atol=1e-6)
    ratio = jnp.asarray(pi[s[:2], a] / mu[s[:2], a], jnp.float32)
    r, g, lam, _ = returns.segment(u, GAMMA, 1.0)
    start = jnp.asarray(np.eye(2)[s[0]], jnp.float32)

    def turn(_, v):
        values = v[s]
        target = returns.vtrace(r, g, lam, values[:-1], values[1:], ratio, rho_clip).target
        return (p * target[0]) @ start

    got = jax.lax.fori_loop(0, 300, turn, jnp.zeros(2))
    pi_rho = np.minimum(rho_clip * mu, pi)
    truth = exact_value(pi_rho / pi_rho.sum(-1, keepdims=True), move, pay)
    np.testing.assert_allclose(got, truth, atol=1e-3)
    if rho_clip == 1.0:
        assert np.abs(got - exact_value(pi, move, pay)).max() > 0.1


def test_retrace_fixed_point():
    """Munos et al. 2016, theorem 1: `Q^pi`, whoever acted and wherever the episode was truncated."""
    mu, pi, move, pay, s, a, p, u = two_state_mdp()
    ratio = jnp.asarray(pi[s[:2], a] / mu[s[:2], a], jnp.float32)
    r, g, lam, _ = returns.segment(u, GAMMA, 1.0)
    pair = np.eye(4)[2 * s[0] + a[0]]
    pair = jnp.asarray(pair / (np.asarray(p) @ pair), jnp.float32)

    def turn(_, q):
        value = jnp.sum(q * jnp.asarray(pi, jnp.float32), -1)
        target = returns.retrace(r, g, lam, q[s[:2], a], value[s[1:]], ratio)
        return ((p * target[0]) @ pair).reshape(2, 2)

    got = jax.lax.fori_loop(0, 300, turn, jnp.zeros((2, 2)))
    np.testing.assert_allclose(got, pay + GAMMA * move @ exact_value(pi, move, pay), atol=1e-3)


def estimators(r, g, lam, left, right, ratio):
    """All of them, `[8, T, *b]`."""
    v = returns.vtrace(r, g, lam, left, right, ratio)
    return jnp.stack(
        [
            returns.td_error(r, g, left, right),
            returns.reward_to_go(r, g, lam),
            returns.lambda_return(r, g, lam, right),
            returns.n_step_return(r, g, lam, right, 3),
            returns.gae(r, g, lam, left, right),
            v.target,
            v.advantage,
            returns.retrace(r, g, lam, left, right, ratio),
        ]
    )


def test_nothing_is_learnt_from_another_episode():
    p = Problem(0, t=16, b=1)
    _, g, lam = p.segment(1.0)
    left, right = p.values

    def of(reward):
        return estimators(reward, g, lam, left, right, p.j(p.ratio))

    influence = np.asarray(jax.jit(jax.jacobian(of))(p.j(p.r)))[:, :, 0, :, 0]
    inside = outside = 0
    for t in range(p.t):
        if not p.last[t, 0]:
            end = p.end(t, 0)
            inside += (influence[:, t, t] != 0).all()
            outside += (influence[:, t, end + 1 :] != 0).sum() + (influence[:, t, :t] != 0).sum()
    assert inside > 5 and outside == 0


def test_jit_and_vmap_over_hyper_parameters():
    p = Problem(0, t=6)
    gammas, lams = jnp.array([0.9, 0.99]), jnp.array([0.5, 1.0])

    def run(gamma, lam):
        s = returns.segment(p.u, gamma, lam)
        return estimators(*s[:3], *p.values, p.j(p.ratio))

    together = eqx.filter_jit(jax.vmap(run))(gammas, lams)
    for i in range(2):
        np.testing.assert_allclose(together[i], jax.jit(run)(gammas[i], lams[i]), **CLOSE)


def test_one_number_for_discount_and_lambda():
    p = Problem(0, t=6)
    r, left, right = p.j(p.r), *p.values
    full = jnp.ones_like(r)
    a = estimators(r, 0.9 * full, 0.8 * full, left, right, p.j(p.ratio))
    np.testing.assert_allclose(estimators(r, 0.9, 0.8, left, right, p.j(p.ratio)), a, **CLOSE)
    b = estimators(r, jnp.asarray(0.9), jnp.asarray(0.8), left, right, p.j(p.ratio))
    np.testing.assert_allclose(b, a, **CLOSE)


def test_gradient_with_respect_to_gamma():
    p = Problem(3, t=6)

    def total(gamma):
        s = returns.segment(p.u, gamma, 0.9)
        return jnp.sum(estimators(*s[:3], *p.values, p.j(p.ratio)))

    step = 1e-2
    low, middle, high = jnp.array([0.8 - step, 0.8, 0.8 + step])
    numeric = (jax.jit(total)(high) - jax.jit(total)(low)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(middle), numeric, rtol=1e-2)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_window_is_the_n_step_return_of_its_first_step(n: int):
    """Cut at the episode's last step, bootstrapped from exactly that one observation."""
    found_cut = 0
    for seed in range(30):
        u = random_unroll(seed, t=n)
        u = eqx.tree_at(lambda u: u.step.obs, u, jnp.arange(n + 1, dtype=jnp.float32)[:, None] + jnp.zeros((1, 3)))
        got = returns.window(u, GAMMA)
        for j in range(3):
            assert got.weight_tm1[j] == (0.0 if u.step.last[0, j] else 1.0)
            if u.step.last[0, j]:
                continue
            total, discount, t = 0.0, 1.0, 0
            while t < n and not (t and u.step.last[t, j]):
                total += discount * float(u.step.reward[t + 1, j])
                discount *= GAMMA * float(u.step.discount[t + 1, j])
                t += 1
            found_cut += t < n
            np.testing.assert_allclose([got.reward[j], got.discount[j]], [total, discount], **CLOSE)
            assert got.step_t.obs[j] == t
    assert n == 1 or found_cut, "some window must be cut"
