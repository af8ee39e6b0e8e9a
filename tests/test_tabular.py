"""Exact solutions, and tabular and linear learners against them, against formulas written out, and against published figures."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yozh.core import YozhError
from yozh.tabular import (
    GTD2,
    MDP,
    TD,
    TDC,
    DoubleQLearning,
    ExpectedSarsa,
    QLearning,
    Sarsa,
    Steps,
    TDLambda,
    action_values,
    control,
    discounted,
    estimates,
    evaluate,
    follow,
    generalised_advantage,
    learn,
    linear,
    n_step,
    policy_iteration,
    problems,
    sweep,
    value_iteration,
)  # fmt: skip
from yozh.tabular.control import epsilon_greedy
from yozh.tabular.mdp import Trajectory

RNG = np.random.default_rng(0)


def random_mdp(states: int = 6, actions: int = 3, seed: int = 0) -> MDP:
    """Its last state is an end, and one action is not legal in one state."""
    rng = np.random.default_rng(seed)
    legal = np.ones((states, actions), bool)
    legal[0, 1] = False
    return MDP.of(rng.dirichlet(np.ones(states), (states, actions)), rng.normal(size=(states, actions)), terminal=(states - 1,),
                  legal=legal)  # fmt: skip


PROBLEMS = {
    "chain": (problems.chain(), 0.95),
    "long chain": (problems.chain(20, 0.1), 0.99),
    "walk": (problems.random_walk(), 0.9),
    "random": (random_mdp(), 0.9),
    "gamble": (problems.gamble(), 1.0),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_value_and_policy_iteration_agree_with_the_linear_solve(name: str):
    mdp, gamma = PROBLEMS[name]
    found = policy_iteration(mdp, gamma) if gamma < 1 else []
    best = value_iteration(mdp, gamma)
    policy = np.eye(mdp.actions)[action_values(mdp, best, gamma).argmax(1)]
    np.testing.assert_allclose(best, evaluate(mdp, policy, gamma), rtol=1e-10, atol=1e-10)
    for (one, worth), (_, better) in itertools.pairwise(found):
        assert (better >= worth - 1e-12).all() and (better > worth + 1e-12).any(), (
            "each step better somewhere, worse nowhere"
        )
        assert (one.sum(1) == 1).all() and not (one[~mdp.legal] > 0).any()
    if found:
        np.testing.assert_allclose(found[-1][1], best, rtol=1e-10, atol=1e-10)


def test_policy_iteration_takes_more_than_one_step_here():
    mdp, gamma = PROBLEMS["long chain"]
    assert len(policy_iteration(mdp, gamma)) > 1
    assert policy_iteration(mdp, gamma)[-1][0].argmax(1).tolist() != [0] * 20


def test_values_by_hand():
    """Two states: stay for 1 at gamma 1/2 is worth 2; going to the end pays 3 at once."""
    mdp = MDP.of([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], [[1.0, 3.0], [7.0, 7.0]], terminal=(1,))
    assert evaluate(mdp, np.array([[1.0, 0.0], [1.0, 0.0]]), 0.5).tolist() == [2.0, 0.0]
    assert evaluate(mdp, np.array([[0.5, 0.5], [1.0, 0.0]]), 0.5)[0] == pytest.approx((0.5 + 1.5) / 0.75)
    assert value_iteration(mdp, 0.5)[0] == pytest.approx(3.0)
    assert value_iteration(mdp, 0.75)[0] == pytest.approx(4.0)
    with pytest.raises(YozhError, match="some states never come to an end"):
        evaluate(mdp, np.array([[1.0, 0.0], [1.0, 0.0]]), 1.0)
    with pytest.raises(YozhError, match="did not come to rest in 100 sweeps"):
        value_iteration(mdp, 1.0, sweeps=100)


def test_a_discount_and_a_trace_are_shares():
    mdp, policy, key = problems.chain(), np.full((5, 2), 0.5), jax.random.key(0)
    trajectory = follow(mdp, policy, 4, key)
    for call in (
        lambda gamma: evaluate(mdp, policy, gamma),
        lambda gamma: value_iteration(mdp, gamma),
        lambda gamma: policy_iteration(mdp, gamma),
        lambda gamma: discounted(mdp, policy, gamma),
        lambda gamma: linear(trajectory, np.eye(5), gamma),
        lambda gamma: control(QLearning(), mdp, gamma=gamma, steps=4, key=key),
        lambda gamma: estimates.sessions(mdp, policy, gamma, np.zeros(5), policy, steps=4, batch=2, key=key),
        lambda gamma: generalised_advantage(mdp, policy, np.zeros(5), gamma, 0.5),
    ):
        for gamma in (1.5, -0.1, np.nan):
            with pytest.raises(YozhError, match=rf"gamma lies in \[0, 1\], not {gamma}"):
                call(gamma)
    for refused in (
        lambda: TDLambda(lam=1.2),
        lambda: generalised_advantage(mdp, policy, np.zeros(5), 0.9, 1.2),
    ):
        with pytest.raises(YozhError, match=r"lam lies in \[0, 1\], not 1.2"):
            refused()
    jax.vmap(lambda lam: TDLambda(lam=lam).lam)(jnp.array([0.1, 0.9]))


def test_the_walk_is_worth_what_it_is():
    mdp = problems.random_walk()
    np.testing.assert_allclose(evaluate(mdp, np.full((21, 2), 0.5), 1.0)[1:-1], np.arange(1, 20) / 10 - 1, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transition": np.ones((2, 2))}, r"transition is \[S, A, S\], not \[2, 2\]"),
        ({"transition": np.full((2, 1, 2), 0.4)}, "chances after state 0, action 0 do not add up to 1"),
        ({"legal": [[False], [True]]}, "no action is legal in state 0"),
        ({"terminal": (0,)}, "start: chances of states that do not end"),
        ({"start": [0.5, 0.2]}, "start: chances of states that do not end"),
    ],
)
def test_what_is_no_mdp_is_refused(changes, message):
    with pytest.raises(YozhError, match=message):
        MDP.of(**{"transition": np.full((2, 1, 2), 0.5), "reward": 0.0} | changes)


def test_a_trajectory_goes_as_often_as_the_chances_say():
    mdp, policy = random_mdp(), np.tile([0.2, 0.0, 0.8], (6, 1))
    went = jax.jit(lambda key: follow(mdp, policy, 40_000, key))(jax.random.key(0))
    s, a, r, d, t = (np.asarray(x) for x in went)
    assert (d == (t != 5)).all() and not (s == 5).any() and not (a == 1).any()
    assert (s[1:][d[:-1] == 1] == t[:-1][d[:-1] == 1]).all() and (s[1:][d[:-1] == 0] == 0).all(), (
        "episodes begin in state 0"
    )
    np.testing.assert_allclose(np.mean(a == 2), 0.8, atol=0.01)
    for state, action in ((0, 2), (3, 0)):
        here = (s == state) & (a == action)
        np.testing.assert_allclose(
            np.bincount(t[here], minlength=6) / here.sum(), mdp.transition[state, action], atol=0.04
        )
        np.testing.assert_allclose(r[here], mdp.reward[state, action], rtol=1e-5)


def test_rewards_are_normal():
    mdp = problems.gamble()
    rewards = np.asarray(
        jax.vmap(lambda key: mdp.step(jnp.int32(1), jnp.int32(4), key)[1])(jax.random.split(jax.random.key(0), 40_000))
    )
    np.testing.assert_allclose([rewards.mean(), rewards.std()], [-0.1, 1.0], atol=0.02)


def random_steps(n: int = 30, d: int = 4) -> Steps:
    x = RNG.normal(size=(2, n, d)).astype(np.float32)
    gamma = np.where(RNG.random(n) < 0.2, 0.0, 0.9).astype(np.float32)
    reward, ratio = RNG.normal(size=n).astype(np.float32), RNG.random(n).astype(np.float32) * 2
    return Steps(*map(jnp.asarray, (x[0], reward, gamma, x[1], ratio)))


def written_out(rule: str, steps: Steps, alpha: float = 0.1, beta: float = 0.2, lam: float = 0.7) -> np.ndarray:
    w, aid, before = np.ones(4), np.zeros(4), 0.0
    for x, r, gamma, y, rho in zip(*(np.asarray(s, float) for s in steps), strict=True):
        delta, known = r + gamma * w @ y - w @ x, aid @ x
        if rule == "TD":
            w = w + alpha * rho * delta * x
        elif rule == "TDLambda":
            aid = rho * (before * lam * aid + x)
            w, before = w + alpha * delta * aid, gamma
        else:
            aid = aid + beta * rho * (delta - known) * x
            w = w + alpha * rho * ((x - gamma * y) * known if rule == "GTD2" else delta * x - gamma * known * y)
    return w


@pytest.mark.parametrize(
    "rule", [TD(0.1), TDLambda(0.1, 0.7), GTD2(0.1, 0.2), TDC(0.1, 0.2)], ids=lambda r: type(r).__name__
)
def test_rules_as_written_out(rule):
    steps = random_steps()
    found = learn(rule, jnp.ones(4), steps).w
    assert found.shape == (30, 4)
    np.testing.assert_allclose(found[-1], written_out(type(rule).__name__, steps), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5, 50])
def test_n_steps_as_written_out(n: int):
    steps = random_steps()
    x, r, gamma, y, rho = (np.asarray(s, float) for s in steps)
    found = n_step(steps, n)
    for t in range(30):
        reward, discount, ratio, k = 0.0, 1.0, 1.0, t
        while True:
            reward, discount, ratio = reward + discount * r[k], discount * gamma[k], ratio * rho[k]
            if discount == 0 or k + 1 == min(t + n, 30):
                break
            k += 1
        np.testing.assert_allclose(found.reward_t[t], reward, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose([found.discount_t[t], found.ratio_tm1[t]], [discount, ratio], rtol=1e-4)
        assert (found.x_tm1[t] == x[t].astype(np.float32)).all()
        if discount:
            assert (found.x_t[t] == y[k].astype(np.float32)).all()
    with pytest.raises(YozhError, match="n must be positive, not 0"):
        n_step(steps, 0)


def test_a_sweep_is_the_mean_of_what_all_transitions_ask_for():
    steps, rule = random_steps(), TD(0.1)
    alone = [learn(rule, jnp.ones(4), jax.tree.map(lambda x, i=i: x[i : i + 1], steps)).w[0] - 1.0 for i in range(30)]
    np.testing.assert_allclose(sweep(rule, jnp.ones(4), steps, 3).w[0], 1.0 + np.mean(alone, 0), rtol=1e-4)
    with pytest.raises(YozhError, match="no order for traces"):
        sweep(TDLambda(), jnp.ones(4), steps, 3)


LINE = np.stack([np.ones(21), np.arange(21) / 10 - 1], 1)
"""Features of the random walk in which the truth is linear: a constant and the place."""


@pytest.mark.parametrize("rule", [TD(1.0), TDC(1.0, 1.0), GTD2(1.0, 1.0)], ids=lambda r: type(r).__name__)
def test_linear_features_find_the_line(rule):
    """From every transition there is."""
    mdp = problems.random_walk()
    s, a = (x.ravel() for x in np.meshgrid(np.arange(1, 20), np.arange(2), indexing="ij"))
    t = mdp.transition[s, a].argmax(1)
    went = Trajectory(*map(jnp.asarray, (s, a, mdp.reward[s, a].astype("f4"), 1.0 - mdp.terminal[t].astype("f4"), t)))
    found = sweep(rule, jnp.zeros(2), linear(went, LINE, 1.0), 20_000).w[-1]
    np.testing.assert_allclose(found, [0.0, 1.0], atol=1e-3)


def test_traces_find_the_line():
    went = follow(problems.random_walk(), np.full((21, 2), 0.5), 100_000, jax.random.key(0))
    found = jax.jit(
        lambda went: learn(TDLambda(0.003, 0.8), jnp.zeros(2), linear(went, LINE, 1.0)).w[-50_000:].mean(0)
    )(went)
    np.testing.assert_allclose(found, [0.0, 1.0], atol=0.08)


def test_importance_ratios_value_another_policy():
    mdp, gamma = problems.chain(slip=0.0), 0.5
    acts, valued = np.full((5, 2), 0.5), np.tile([0.9, 0.1], (5, 1))
    went = follow(mdp, acts, 60_000, jax.random.key(0))
    for ratio, policy in ((valued / acts, valued), (None, acts)):
        steps = linear(went, np.eye(5), gamma, ratio)
        found = jax.jit(lambda steps: learn(TD(0.02), jnp.zeros(5), steps).w[-30_000:].mean(0))(steps)
        np.testing.assert_allclose(found, evaluate(mdp, policy, gamma), atol=0.25)


def test_the_deadly_triad():
    """w → 2w: a factor of 1 + α(2γ - 1) an update."""
    one = jnp.ones((100, 1))
    for gamma, last in ((0.99, 1.15e4), (0.4, 0.98**100)):
        steps = Steps(one, jnp.zeros(100), jnp.full(100, gamma), 2 * one, jnp.ones(100))
        found = learn(TD(0.1), jnp.ones(1), steps).w[:, 0]
        np.testing.assert_allclose(found, (1 + 0.1 * (2 * gamma - 1)) ** np.arange(1, 101), rtol=1e-4)
        np.testing.assert_allclose(found[-1], last, rtol=2e-3)


def star(gamma: float) -> Steps:
    _, features = problems.star()
    x = jnp.asarray(features, jnp.float32)
    return Steps(x, jnp.zeros(7), jnp.full(7, gamma), jnp.broadcast_to(x[6:], x.shape), jnp.ones(7))


FIRST = jnp.ones(8).at[6].set(10.0)


def test_td_diverges_on_bairds_star():
    found = sweep(TD(0.01), FIRST, star(0.99), 1000).w
    np.testing.assert_allclose(np.abs(found[-1]).max(), 335.0, atol=0.1)


@pytest.mark.parametrize("rule", [TDC(0.2, 0.2), GTD2(0.2, 0.5)], ids=lambda r: type(r).__name__)
def test_gradient_td_converges_on_bairds_star(rule):
    found = sweep(rule, FIRST, star(0.9), 20_000).w
    assert np.abs(star(0.9).x_tm1 @ found[-1]).max() < 0.01 and np.abs(found).max() <= 10.0
    assert np.abs(sweep(TD(0.2), FIRST, star(0.9), 1000).w[-1]).max() > 1000.0


def test_bairds_star_is_a_policy_of_its_mdp():
    mdp, features = problems.star()
    assert (mdp.transition[:, 0].argmax(1) == 6).all() and (mdp.transition[:, 0].max(1) == 1).all()
    assert np.linalg.matrix_rank(features) == 7, "the true values, 0, and all others can be said"


METHODS = [QLearning, DoubleQLearning, Sarsa, ExpectedSarsa]


@pytest.mark.parametrize("method", METHODS)
def test_control_finds_its_fixed_point(method):
    """On a chain where nothing is left to chance but the exploration: the optimum, or the value of exploring on."""
    mdp, gamma, epsilon = problems.chain(4, 0.0), 0.6, 0.4
    rate = 0.02 if method is Sarsa else 0.3
    run = jax.jit(lambda key: control(method(rate, epsilon), mdp, gamma=gamma, steps=40_000, key=key)[0])
    found = np.asarray(run(jax.random.key(0))).mean(0).T
    best = action_values(mdp, value_iteration(mdp, gamma), gamma)
    if method in (QLearning, DoubleQLearning):
        np.testing.assert_allclose(found, best, rtol=1e-3)
        return
    policy = np.full((4, 2), epsilon / 2) + (1 - epsilon) * np.eye(2)[found.argmax(1)]
    expected = action_values(mdp, evaluate(mdp, policy, gamma), gamma)
    np.testing.assert_allclose(found, expected, rtol=0.05 if method is Sarsa else 1e-3)
    assert np.abs(found - best).max() > 0.5, "exploring costs"


@pytest.mark.parametrize("method", METHODS)
def test_features_that_name_the_states_otherwise_make_the_same_table(method):
    mdp, turned = random_mdp(), np.eye(6)[[3, 1, 5, 0, 2, 4]]
    found = [
        control(method(0.1, 0.3), mdp, gamma=0.9, steps=200, key=jax.random.key(0), features=x) for x in (None, turned)
    ]
    (table, one), (w, other) = found
    assert (one.action_tm1 == other.action_tm1).all()
    np.testing.assert_allclose(w @ jnp.asarray(turned.T, jnp.float32), table, atol=1e-6)


def test_seeds_and_step_sizes_abreast():
    mdp, keys, rates = problems.chain(), jax.random.split(jax.random.key(0), 3), jnp.array([0.1, 0.4])

    def run(key: jax.Array, alpha: jax.Array) -> jax.Array:
        return control(QLearning(alpha), mdp, gamma=0.9, steps=300, key=key)[0]

    together = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(keys, rates)
    assert together.shape == (3, 2, 1, 2, 5)
    np.testing.assert_allclose(together[2, 1], run(keys[2], rates[1]), rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_illegal_actions_are_never_taken(method):
    _, went = control(method(0.1, 0.9), random_mdp(), gamma=0.9, steps=2000, key=jax.random.key(0))
    assert (went.state_tm1 == 0).any() and not ((went.state_tm1 == 0) & (went.action_tm1 == 1)).any()


@pytest.mark.parametrize("method", [QLearning, DoubleQLearning])
def test_illegal_actions_are_never_bootstrapped_from(method):
    """What is forbidden in state 1 keeps its first value, 9, and would be the best there."""
    mdp = MDP.of(
        [[[0, 1, 0]] * 2, [[0, 0, 1]] * 2, [[0, 0, 1]] * 2], 1.0, terminal=(2,), legal=[[1, 1], [1, 0], [1, 1]]
    )
    w, _ = control(method(0.5, 0.5), mdp, gamma=1.0, steps=2000, key=jax.random.key(0), first=9.0)
    np.testing.assert_allclose(w[:, :, 0], 2.0, rtol=1e-4)
    np.testing.assert_allclose(w[:, 0, 1], 1.0, rtol=1e-4)


def test_epsilon_greedy_shares_among_the_best():
    legal = jnp.array([True, True, True, False])
    found = epsilon_greedy(
        jnp.array([2.0, 1.0, 2.0, 9.0]).at[3].set(jnp.finfo(jnp.float32).min), legal, jnp.float32(0.3)
    )
    np.testing.assert_allclose(found, [0.45, 0.1, 0.45, 0.0], rtol=1e-6)
