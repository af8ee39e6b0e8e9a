"""What DQN's values say: distributions that are right, means and risks that follow from them, targets, scales."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from yozh import losses, returns
from yozh.agents.backups import Greedy, Look, Munchausen, Peng, Retrace
from yozh.agents.risks import CVaR, Mean, MeanVariance, Wang
from yozh.agents.scales import Clipped, PopArt, Scaled, Squashed
from yozh.agents.values import C51, Expected, ImplicitQuantile, Outcomes, QuantileRegression, middles, taken
from yozh.core import Spec, TimeStep, Unroll, YozhError
from yozh.networks import MLP, QNetwork, forward
from yozh.networks.noisy import Factorised, perturbed
from yozh.spaces import Box, Dict, Discrete

SPEC = Spec(Box((1,)), Discrete(1))
NET = MLP((16,), "relu", "uniform")


def outcomes(worth, chance=None) -> Outcomes:
    worth = jnp.asarray(worth, jnp.float32)
    return Outcomes(worth, jnp.full_like(worth, 1 / worth.shape[-1]) if chance is None else jnp.asarray(chance, jnp.float32))  # fmt: skip


def learnt(values, draw, steps: int = 1500, batch: int = 64, rate: float = 3e-2) -> Outcomes:
    """What is known of one action whose returns `draw(key, n)` draws, one for each element of a batch."""
    net = values.network(NET, SPEC, jax.random.key(0), actions=1, dueling=False)
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))
    obs, first = jnp.ones((batch, 1)), jnp.zeros(batch, bool)

    def loss(net, key):
        k, q = jax.random.split(key)
        question = values.question(obs, q)
        answer = forward(net, question, (), first)[0][:, 0]
        return values.lesson(answer, question, outcomes(draw(k, batch)[:, None])).loss.mean()

    def turn(carry, key):
        net, state = carry
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(jax.grad(loss)(net, key), state)
        return (optax.apply_updates(net, updates), state), None

    keys = jax.random.split(jax.random.key(1), steps)
    (net, _), _ = jax.jit(lambda: jax.lax.scan(turn, (net, optimiser.init(net)), keys))()
    return values.outcomes(forward(net, values.question(obs[:1], None), (), first[:1])[0][0, 0])


def coin(key, n):
    return jnp.where(jax.random.bernoulli(key, 0.5, (n,)), 1.0, -1.0)


def normal(key, n):
    return jax.random.normal(key, (n,))


@pytest.mark.parametrize("values", [C51(-2.0, 2.0, 41), QuantileRegression(32, kappa=0.05), ImplicitQuantile(32, kappa=0.05)], ids=lambda v: type(v).__name__)  # fmt: skip
def test_a_coin_has_two_ends(values):
    found = learnt(values, coin)
    mass = lambda end: float(jnp.sum(jnp.where(jnp.abs(found.worth - end) < 0.26, found.chance, 0.0)))  # noqa: E731
    assert mass(1.0) >= 0.45 and mass(-1.0) >= 0.45
    assert abs(float(found.mean())) < 0.1


def test_quantile_regression_finds_the_quantiles_of_a_normal():
    """On the loss alone, the targets being the normal's own quantiles."""
    values = QuantileRegression(16, kappa=1e-3)
    target = outcomes(stats.norm.ppf(middles(4000))[None])
    level = middles(16)

    def turn(i, q):
        return q - 3.0 / (1 + i / 40) * jax.grad(lambda q: values.lesson(q, (), target).loss[0])(q)

    found = jax.jit(lambda q: jax.lax.fori_loop(0, 3000, turn, q))(jnp.zeros((1, 16)))[0]
    np.testing.assert_allclose(found, stats.norm.ppf(level), atol=0.02)


@pytest.mark.slow
def test_implicit_quantiles_find_those_of_a_normal():
    found = learnt(ImplicitQuantile(32, kappa=0.01), normal, steps=3000, batch=256, rate=1e-2)
    inner = slice(2, -2)  # below 5 % and above 95 % a batch has few returns
    np.testing.assert_allclose(found.worth[inner], stats.norm.ppf(middles(32))[inner], atol=0.05)


def test_fractions_are_embedded_by_cosines():
    """f(ψ(s) ⊙ φ(τ)), written out (Dabney et al. 2018b, eq. 4)."""
    spec = Spec(Box((3,)), Discrete(2))
    net = ImplicitQuantile(4, 6).network(NET, spec, jax.random.key(0), actions=2, dueling=False)
    obs, fraction = jnp.array([0.3, -0.2, 1.0]), np.array([0.1, 0.35, 0.6, 0.9], np.float32)
    features = np.asarray(net.embed((obs, jnp.asarray(fraction)))[0])
    weight, bias = np.asarray(net.cosines.weight), np.asarray(net.cosines.bias)
    waves = np.cos(np.pi * np.arange(6) * fraction[:, None]) @ weight.T + bias
    expected = np.stack([net.head(jnp.asarray(features * w, jnp.float32)) for w in np.maximum(waves, 0.0)], -1)
    answer = forward(net, (obs[None], jnp.asarray(fraction)[None]), (), jnp.zeros(1, bool))[0][0]
    assert answer.shape == (2, 4)
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)


def test_fractions_are_drawn_uniformly_and_spread_evenly_where_an_action_is_carried_out():
    values, obs = ImplicitQuantile(5), jnp.zeros((4000, 3))
    drawn, even = (values.question(obs, key)[1] for key in (jax.random.key(0), None))
    assert drawn.shape == even.shape == (4000, 5) and (jnp.diff(drawn) >= 0).all()
    assert stats.kstest(np.asarray(drawn).ravel(), "uniform").pvalue > 0.01
    np.testing.assert_allclose(even[7], [0.1, 0.3, 0.5, 0.7, 0.9], rtol=1e-6)


def test_what_is_said_of_a_high_fraction_is_drawn_up_by_as_much():
    """Far below the target, an answer's slope is its fraction."""

    def loss(answer):
        return ImplicitQuantile(2).lesson(answer, ((), jnp.array([[0.1, 0.9]])), outcomes([[50.0]])).loss[0]

    low, high = jax.grad(loss)(jnp.zeros((1, 2)))[0]
    np.testing.assert_allclose(high / low, 9.0, rtol=1e-5)


def test_lessons_are_least_for_the_target_itself():
    """Loss falls towards the target, the priority is 0 there, and clipping is counted."""
    values, support = C51(-1.0, 1.0, 5), np.linspace(-1, 1, 5)
    share = np.array([[0.1, 0.2, 0.4, 0.2, 0.1]])
    lesson = values.lesson(jnp.log(jnp.asarray(share, jnp.float32)), (), outcomes(support[None], share))
    np.testing.assert_allclose(lesson.priority, 0.0, atol=1e-6)
    np.testing.assert_allclose(lesson.loss, stats.entropy(share[0]), rtol=1e-5)
    worse = values.lesson(jnp.zeros((1, 5)), (), outcomes(support[None], share))
    np.testing.assert_allclose(worse.priority, stats.entropy(share[0], np.full(5, 0.2)), rtol=1e-5)
    beyond = values.lesson(jnp.zeros((1, 5)), (), outcomes([[-3.0, 0.0, 1.0, 1.1]], [[0.1, 0.3, 0.4, 0.2]]))
    np.testing.assert_allclose(beyond.metrics["clipped_targets"], 0.3, rtol=1e-6)
    quantiles = QuantileRegression(3).lesson(jnp.array([[0.0, 1.0, 2.0]]), (), outcomes([[4.0, 0.0]], [[0.75, 0.25]]))
    np.testing.assert_allclose(quantiles.priority, 2.0, rtol=1e-6)
    same = QuantileRegression(3).lesson(jnp.array([[0.0, 1.0, 2.0]]), (), outcomes([[4.0, 4.0, 0.0, 4.0]]))
    np.testing.assert_allclose(quantiles.loss, same.loss, rtol=1e-6)
    np.testing.assert_allclose(Expected().known(outcomes([[4.0, 0.0]], [[0.75, 0.25]])).worth, [[3.0]])
    plain = Expected().lesson(jnp.array([[1.0]]), (), outcomes([[4.0]]))
    assert float(plain.loss[0]) == 2.5 and float(plain.priority[0]) == 3.0
    assert float(Expected(False).lesson(jnp.array([[1.0]]), (), outcomes([[4.0]])).loss[0]) == 4.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.integers(1, 30))
def test_projection_of_any_returns_keeps_mass_and_mean(seed: int, m: int):
    rng = np.random.default_rng(seed)
    worth, chance = rng.normal(0, 8, m), rng.dirichlet(np.ones(m))
    support = jnp.linspace(-10, 10, 51)
    found = losses.project(support, *(jnp.asarray(x, jnp.float32) for x in (worth, chance)))
    assert abs(float(found.sum()) - 1) < 1e-5 and (found >= 0).all()
    np.testing.assert_allclose(support @ found, np.clip(worth, -10, 10) @ chance, atol=2e-5)


def test_risks():
    """On a sure return of 0.9 and a coin of 0 and 2: the mean takes the coin, the averse the sure one."""
    pair = outcomes([[0.9] * 8, [0.0] * 4 + [2.0] * 4])
    value = lambda risk: np.asarray(risk(pair.worth, pair.chance))  # noqa: E731
    np.testing.assert_allclose(value(Mean()), [0.9, 1.0], rtol=1e-6)
    for alpha, second in ((0.1, 0.0), (0.25, 0.0), (0.5, 0.0), (0.75, 2 / 3), (1.0, 1.0)):
        np.testing.assert_allclose(value(CVaR(alpha)), [0.9, second], rtol=1e-5)
    wang = 2 * (1 - stats.norm.cdf(stats.norm.ppf(0.5) + 0.75))
    np.testing.assert_allclose(value(Wang(-0.75)), [0.9, wang], rtol=1e-5)
    assert value(Wang(0.75))[1] > 1.0
    np.testing.assert_allclose(value(MeanVariance(0.5)), [0.9, 0.5], rtol=1e-5)
    values = C51(-1.0, 3.0, 5, risk=CVaR(0.25))
    answer = jnp.log(jnp.array([[1e-9, 0.1, 0.9, 1e-9, 1e-9], [1e-9, 0.5, 1e-9, 0.5, 1e-9]]))
    averse = values.prefer(values.outcomes(answer))
    assert averse[0] > averse[1]
    gamble = eqx.tree_at(lambda v: v.risk, values, Mean())
    assert gamble.prefer(gamble.outcomes(answer))[0] < gamble.prefer(gamble.outcomes(answer))[1]


def test_dueling_advantages_have_mean_zero_for_each_number():
    net = QNetwork(NET, None, Spec(Box((1,)), Discrete(4)), jax.random.key(0), actions=4, dueling=True, outputs=7)
    x = jax.random.normal(jax.random.key(1), (16,))
    answer = net.head(x)
    assert answer.shape == (4, 7)
    np.testing.assert_allclose(answer.mean(0), net.head.value(x), atol=1e-6)
    shifted = eqx.tree_at(lambda h: h.advantage.bias, net.head, net.head.advantage.bias + jnp.tile(jnp.arange(7.0), 4))
    np.testing.assert_allclose(shifted(x), answer, atol=1e-5)


T, A = 4, 3


def window(seed: int) -> Unroll:
    """Two windows of T steps; the second one's episode ends in the middle."""
    rng = np.random.default_rng(seed)
    last = jnp.zeros((T + 1, 2), bool).at[2, 1].set(True)
    obs = jnp.asarray(rng.normal(size=(T + 1, 2, A)), jnp.float32)  # the observation is what is thought of the actions
    reward = jnp.asarray(rng.normal(size=(T + 1, 2)), jnp.float32)
    step = TimeStep(obs, reward, jnp.ones((T + 1, 2)), jnp.zeros((T + 1, 2), bool), last)
    action = jnp.asarray(rng.integers(A, size=(T + 1, 2)), jnp.int32)
    return Unroll(step, action, {}, (), jnp.zeros(2, jnp.int32), jnp.ones(2))


def look(step: TimeStep) -> Look:
    return Look(step.obs, outcomes(step.obs[..., None]))


def test_retrace_and_peng_by_hand():
    gamma, lam = 0.9, 0.8
    for backup, cuts in ((Retrace(lam), True), (Peng(lam), False)):
        for seed in range(20):
            u = window(seed)
            q, r, a = (np.asarray(x, np.float64) for x in (u.step.obs, u.step.reward, u.action))
            found = np.asarray(backup(look, u, jnp.float32(gamma)).outcomes.worth)[:, 0]
            for b, end in ((0, T), (1, 2)):
                total, trace = q[0, b, int(a[0, b])], 1.0
                for t in range(end):
                    if t > 0:
                        greedy = int(a[t, b]) == q[t, b].argmax()
                        trace *= gamma * lam * (greedy if cuts else 1.0)
                    total += trace * (r[t + 1, b] + gamma * q[t + 1, b].max() - q[t, b, int(a[t, b])])
                np.testing.assert_allclose(found[b], total, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 3])
def test_munchausen_by_hand(n: int):
    gamma, tau, alpha, lowest = 0.9, 0.3, 0.7, -0.5
    for seed in range(10):
        u = jax.tree.map(lambda x: x[: n + 1] if x.ndim > 1 else x, window(seed))
        target = Munchausen(tau, alpha, lowest)(look, u, jnp.float32(gamma))
        q, r, a = (np.asarray(x, np.float64) for x in (u.step.obs, u.step.reward, u.action))
        log_pi = q / tau - np.log(np.exp(q / tau).sum(-1, keepdims=True))
        for b, end in ((0, n), (1, min(n, 2))):
            total = 0.0
            for t in range(end):
                total += gamma**t * (r[t + 1, b] + alpha * np.clip(tau * log_pi[t, b, int(a[t, b])], lowest, 0))
            soft = np.exp(log_pi[end, b]) @ (q[end, b] - tau * log_pi[end, b])
            np.testing.assert_allclose(target.outcomes.mean()[b], total + gamma**end * soft, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(target.outcomes.chance.sum(-1), 1.0, rtol=1e-5)


def test_munchausen_never_counts_what_is_not_legal():
    u = window(0)
    seen = lambda step: Look(step.obs.at[..., 0].set(jnp.finfo(jnp.float32).min), outcomes(step.obs[..., None]))  # noqa: E731
    target = Munchausen()(seen, u, jnp.float32(0.9)).outcomes
    assert (np.asarray(target.chance)[:, 0] == 0).all()
    assert np.abs(target.worth).max() < 1e4, "PopArt squares what has no chance, too"


def test_greedy_takes_the_outcomes_of_the_best_action():
    u = window(3)
    spread = jnp.array([-1.0, 1.0])
    seen = lambda step: Look(step.obs, outcomes(step.obs[..., None] + spread.reshape(*[1] * step.obs.ndim, 2)))  # noqa: E731
    target = Greedy()(seen, u, jnp.float32(0.9))
    reward, discount, step_t, weight = returns.window(u, jnp.float32(0.9))
    best = reward + discount * step_t.obs.max(-1)
    np.testing.assert_allclose(target.outcomes.worth, best[:, None] + discount[:, None] * spread[None], rtol=1e-5)
    np.testing.assert_array_equal(target.weight, weight)
    x = jnp.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(taken(x, jnp.array([2, 0])), [x[0, 2], x[1, 0]])


def test_rewards_on_another_scale():
    reward = jnp.array([-3.0, 0.2, 7.0])
    np.testing.assert_allclose(Clipped(1.0)(reward), [-1.0, 0.2, 1.0])
    np.testing.assert_allclose(Scaled(0.5)(reward), [-1.5, 0.1, 3.5])


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e5, 1e5, width=32), st.sampled_from([0.0, 1e-3, 1e-2]))
def test_squash_and_back(x: float, epsilon: float):
    h = np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + epsilon * x
    found = losses.squash(jnp.float32(x), epsilon)
    np.testing.assert_allclose(found, h, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(losses.unsquash(found, epsilon), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize(("values", "dueling"), [(Expected(), False), (Expected(), True), (QuantileRegression(5), True), (ImplicitQuantile(5), False)])  # fmt: skip
def test_popart_moves_its_scale_and_not_its_answers(values, dueling: bool, noisy: bool):
    spec, scale = Spec(Box((3,)), Discrete(2)), PopArt(0.3)
    net = values.network(NET, spec, jax.random.key(0), actions=2, dueling=dueling)
    net = scale.install(Factorised().install(net) if noisy else net, spec)
    obs, first, weight = jax.random.normal(jax.random.key(1), (50, 3)), jnp.zeros(50, bool), jnp.ones(50)

    def said(net):
        return scale.decode(net, forward(net, values.question(obs, None), (), first)[0])

    for far in (1.0, 300.0, -40.0):
        target = outcomes(far + 5 * jax.random.normal(jax.random.key(2), (50, 1)))
        before, mean, square = said(net), float(net.mean), float(net.square)
        net = scale.follow(net, target, weight)
        after = said(net)
        assert np.abs(after - before).max() <= 1e-5 * max(np.abs(before).max(), float(net.scale()[1]))
        np.testing.assert_allclose(net.mean, mean + 0.3 * (target.worth.mean() - mean), rtol=1e-4)
        np.testing.assert_allclose(net.square, square + 0.3 * (jnp.square(target.worth).mean() - square), rtol=1e-4)
    sure = PopArt(1.0).follow(net, target, weight)
    np.testing.assert_allclose(sure.scale(), (target.worth.mean(), target.worth.std()), rtol=1e-2)
    encoded = scale.encode(sure, target.worth)
    np.testing.assert_allclose([encoded.mean(), encoded.std()], [0.0, 1.0], atol=0.02)
    np.testing.assert_allclose(Squashed().decode(net, Squashed().encode(net, target.worth)), target.worth, rtol=1e-3)


def test_popart_knows_the_moments_of_distributions_that_count():
    net = PopArt().install(Expected().network(NET, SPEC, jax.random.key(0), actions=1, dueling=False), SPEC)
    target = outcomes([[1.0, 3.0], [5.0, 7.0], [900.0, 900.0]], [[0.25, 0.75], [0.5, 0.5], [0.5, 0.5]])
    net = PopArt(1.0).follow(net, target, jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose([net.mean, net.square], [(2.5 + 6.0) / 2, (7.0 + 37.0) / 2], rtol=1e-6)


TASKS = Spec(Dict.of({"task": Discrete(3), "x": Box((3,))}), Discrete(2))


def followed(mean, square, task, target, weight, rate: float):
    """μ_i ← (1 − β) μ_i + β G, ν_i ← (1 − β) ν_i + β G², of each task that has targets in the batch, with their mean."""
    mean, square = np.array(mean, np.float64), np.array(square, np.float64)
    for i in range(len(mean)):
        first, second, n = 0.0, 0.0, 0
        for b in range(len(task)):
            if task[b] == i and weight[b] > 0:
                first, second, n = first + float(target[b]), second + float(target[b]) ** 2, n + 1
        if n > 0:
            mean[i] = (1 - rate) * mean[i] + rate * first / n
            square[i] = (1 - rate) * square[i] + rate * second / n
    return mean, square


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize(("values", "dueling"), [(Expected(), False), (QuantileRegression(5), True), (ImplicitQuantile(5), False)])  # fmt: skip
def test_a_task_moves_its_own_scale_and_no_tasks_answers(values, dueling: bool, noisy: bool):
    """Returns of the tasks differ a thousandfold; in a batch some tasks have no targets, and some targets do not count."""
    net = values.network(NET, TASKS, jax.random.key(0), actions=2, dueling=dueling)
    scale = PopArt(0.3, "task")
    net = scale.install(Factorised().install(net) if noisy else net, TASKS)
    rng = np.random.default_rng(0)
    of, first = np.arange(60) % 3, jnp.zeros(60, bool)
    obs = {"task": jnp.asarray(of, jnp.int32), "x": jnp.asarray(rng.normal(size=(60, 3)), jnp.float32)}

    def said(net):
        answer = forward(perturbed(net, jax.random.key(3)), values.question(obs, None), (), first)[0]
        return np.asarray(scale.decode(net, answer, obs), np.float64)

    for moving, far in (({0}, 2.0), ({1, 2}, 300.0), ({0, 2}, -40.0), (set(), 5.0), ({0, 1, 2}, 7.0)):
        target = (far + 5 * rng.normal(size=60)) * 1000.0**of
        weight = np.isin(of, list(moving)) * rng.integers(2, size=60)
        before, mean, square = said(net), net.mean, net.square
        net = scale.follow(net, outcomes(target[:, None]), jnp.asarray(weight, jnp.float32), obs)
        wrong, sigma = np.abs(said(net) - before), net.scale()[1]
        for i in range(3):
            assert wrong[of == i].max() <= 1e-5 * max(np.abs(before[of == i]).max(), float(sigma[i]))
        still = [i for i in range(3) if i not in moving]
        np.testing.assert_array_equal(net.mean[jnp.array(still, int)], mean[jnp.array(still, int)])
        expected = followed(mean, square, of, target, weight, 0.3)
        np.testing.assert_allclose((net.mean, net.square), expected, rtol=1e-4)


def test_returns_are_said_on_the_scale_of_their_task():
    """Of steps `[B]` and of sequences `[T, B]`, whatever other axes numbers have."""
    rng, scale = np.random.default_rng(0), PopArt(task="task")
    net = scale.install(Expected().network(NET, TASKS, jax.random.key(0), actions=2, dueling=False), TASKS)
    mean, sigma = np.array([1.0, 0.0, -50.0], np.float32), np.array([2.0, 1000.0, 10.0], np.float32)
    net = eqx.tree_at(lambda n: (n.mean, n.square), net, (jnp.asarray(mean), jnp.asarray(sigma**2 + mean**2)))
    for lead in ((7,), (4, 7)):
        task, x = rng.integers(3, size=lead), rng.normal(size=(*lead, 2, 5))
        obs = {"task": jnp.asarray(task, jnp.int32)}
        expected = x * sigma[task][..., None, None] + mean[task][..., None, None]
        found = scale.decode(net, jnp.asarray(x, jnp.float32), obs)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        np.testing.assert_allclose(scale.encode(net, found, obs), x, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: C51(1.0, 1.0), r"values.low must be less than values.high, and they are 1.0 and 1.0"),
        (lambda: C51(atoms=1), "values.atoms must be 2 or more, not 1"),
        (lambda: QuantileRegression(0), "values.quantiles must be positive, not 0"),
        (lambda: ImplicitQuantile(kappa=0.0), "values.kappa must be positive, not 0"),
        (lambda: CVaR(0.0), r"risk.alpha lies in \(0, 1\], not 0"),
        (lambda: Retrace(1.2), r"backup.lam lies in \[0, 1\], not 1.2"),
        (lambda: Munchausen(0.0), "backup.temperature must be positive, not 0"),
        (lambda: Munchausen(lowest=1.0), "backup.lowest must not be positive, and is 1.0"),
        (lambda: Clipped(0.0), "reward.bound must be positive, not 0"),
        (lambda: Squashed(-1.0), "scale.epsilon must not be negative, and is -1"),
        (lambda: PopArt(0.0), r"scale.rate lies in \(0, 1\], not 0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message: str):
    with pytest.raises(YozhError, match=message):
        make()
