"""Policy gradients of finite problems: the theorem against autodiff and enumeration, every estimate against the theorem, and the losses of agents."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.test_tabular import random_mdp
from yozh.agents import A2C, REINFORCE
from yozh.agents.estimators import GAE, Mean, NStep, RewardToGo, TotalReturn, Value, VTrace
from yozh.core import Spec, TimeStep, Unroll, YozhError
from yozh.networks import MLP
from yozh.spaces import Discrete
from yozh.tabular import (
    MDP,
    Softmax,
    average,
    discounted,
    estimates,
    evaluate,
    fisher,
    generalised_advantage,
    gradient,
    natural_gradient,
    occupancy,
    problems,
)
from yozh.tabular.estimates import Sessions, sessions

RNG = np.random.default_rng(0)
RANDOM = random_mdp(5, 3)
CASES = {
    "table": (RANDOM, Softmax.table(RANDOM), 0.9),
    "linear": (RANDOM, Softmax.linear(RANDOM, RNG.normal(size=(5, 2))), 0.9),
    "an end, gamma 1": (problems.triangle(), Softmax.table(problems.triangle()), 1.0),
    "no end": (problems.chain(), Softmax.table(problems.chain()), 0.95),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_theorem_is_the_gradient_of_the_linear_solve(name: str):
    mdp, policy, gamma = CASES[name]
    theta = RNG.normal(size=policy.size)

    def worth(theta):
        logits = jnp.where(mdp.legal, jnp.asarray(policy.features) @ theta, -jnp.inf)
        chances = jax.nn.softmax(logits)
        p = jnp.einsum("sa,sat->st", chances, mdp.transition)
        return mdp.start @ jnp.linalg.solve(jnp.eye(mdp.states) - gamma * p, (chances * mdp.reward).sum(1))

    judged = discounted(mdp, policy.chances(theta), gamma)
    with jax.enable_x64(True):
        value, slope = jax.value_and_grad(worth)(jnp.asarray(theta))
        value, slope = float(value), np.asarray(slope)
    np.testing.assert_allclose(judged.worth, value, rtol=1e-12)
    np.testing.assert_allclose(gradient(policy, theta, judged), slope, rtol=1e-10, atol=1e-10)
    assert np.abs(slope).max() > 0.01


@pytest.mark.parametrize("name", CASES)
def test_value_action_value_and_advantage(name: str):
    """Their definitions, and what follows: V = Σ π Q, Σ π A = 0, J = Σ d Σ π r, and the sum of advantages along another policy
    is how much better it is (Kakade & Langford 2002, lemma 6.1)."""
    mdp, policy, gamma = CASES[name]
    chances, other = (policy.chances(RNG.normal(size=policy.size)) for _ in range(2))
    judged = discounted(mdp, chances, gamma)
    q = mdp.reward + gamma * mdp.transition @ judged.value
    np.testing.assert_allclose(np.where(mdp.legal, judged.q - q, 0.0), 0.0, atol=1e-10)
    np.testing.assert_allclose((chances * judged.q).sum(1), judged.value, atol=1e-10)
    np.testing.assert_allclose((chances * judged.advantage).sum(1), 0.0, atol=1e-10)
    np.testing.assert_allclose(judged.visits @ (chances * mdp.reward).sum(1), judged.worth, rtol=1e-10)
    gain = occupancy(mdp, other, gamma) @ (other * judged.advantage).sum(1)
    np.testing.assert_allclose(mdp.start @ (evaluate(mdp, other, gamma) - judged.value), gain, atol=1e-10)


def test_a_linear_policy_has_weights_for_each_action():
    x, theta = RNG.normal(size=(5, 2)), RNG.normal(size=6)
    policy = Softmax.linear(RANDOM, x)
    np.testing.assert_allclose(policy.features @ theta, x @ theta.reshape(3, 2).T)
    assert policy.size == 6 and Softmax.table(RANDOM).size == 15 and policy.chances(theta)[0, 1] == 0
    with pytest.raises(YozhError, match=r"features are \[S, d\], with S = 5"):
        Softmax.linear(RANDOM, x[:4])


def test_occupancy_is_the_sum_over_time():
    mdp, gamma = RANDOM, 0.9
    policy = Softmax.table(mdp).chances(RNG.normal(size=15))
    at, total, p = np.asarray(mdp.start), np.zeros(5), np.einsum("sa,sat->st", policy, mdp.transition)
    for t in range(400):
        total, at = total + gamma**t * at, at @ p
    np.testing.assert_allclose(occupancy(mdp, policy, gamma), total, atol=1e-12)
    chain = problems.chain()
    np.testing.assert_allclose(occupancy(chain, np.full((5, 2), 0.5), 0.95).sum(), 20.0)
    with pytest.raises(YozhError, match="never come to an end"):
        occupancy(MDP.of([[[1.0]]], 1.0), np.ones((1, 1)), 1.0)


def test_the_average_reward_and_its_gradient():
    mdp, h = problems.chain(), 1e-6
    policy, theta = Softmax.table(mdp), RNG.normal(size=10)
    judged = average(mdp, policy.chances(theta))
    slopes = [(average(mdp, policy.chances(theta + h * e)).worth - average(mdp, policy.chances(theta - h * e)).worth) / (2 * h)
              for e in np.eye(10)]  # fmt: skip
    np.testing.assert_allclose(gradient(policy, theta, judged), slopes, atol=1e-8)
    patient = discounted(mdp, policy.chances(theta), 0.99999)
    np.testing.assert_allclose(patient.worth * 1e-5, judged.worth, rtol=1e-3)
    np.testing.assert_allclose(patient.advantage, judged.advantage, atol=1e-2)
    with pytest.raises(YozhError, match="never end"):
        average(RANDOM, np.full((5, 3), 1 / 3))
    with pytest.raises(YozhError, match="no single stationary"):
        average(MDP.of(np.eye(2)[:, None], 1.0), np.ones((2, 1)))


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(1, keepdims=True)


def test_the_natural_gradient_does_not_depend_on_the_parameters():
    """A table's natural step adds the advantages to the logits, whatever the coordinates; F is the metric of the KL divergence."""
    mdp, gamma = problems.triangle(), 0.9
    policy, theta, stretch = Softmax.table(mdp), RNG.normal(size=8), RNG.normal(size=(8, 8))
    judged = discounted(mdp, policy.chances(theta), gamma)
    turned = Softmax(policy.features @ stretch, policy.legal)
    for p, at in ((policy, theta), (turned, np.linalg.solve(stretch, theta))):
        step = p.features @ natural_gradient(p, at, judged)
        np.testing.assert_allclose(centred(step), centred(judged.advantage), atol=1e-8)
    d, h = RNG.normal(size=8), 1e-4
    old, new = policy.chances(theta), policy.chances(theta + h * d)
    kl = judged.visits @ (old * np.log(old / new)).sum(1)
    np.testing.assert_allclose(2 * kl / h**2, d @ fisher(policy, theta, judged.visits) @ d, rtol=1e-3)


MDP3, GAMMA = problems.triangle(), 0.9
POLICY, THETA = Softmax.table(MDP3), RNG.normal(size=8)
CHANCES, SCORE = POLICY.chances(THETA), POLICY.score(THETA)
JUDGED = discounted(MDP3, CHANCES, GAMMA)
STEPS = 4


def paths() -> list[tuple[float, list[tuple[int, int, float, int]]]]:
    """Every session of at most four steps: its chance, and its transitions."""
    found = []

    def go(state: int, chance: float, went: list) -> None:
        if len(went) == STEPS or MDP3.terminal[state]:
            found.append((chance, went))
            return
        for a, t in itertools.product(range(2), range(4)):
            if p := CHANCES[state, a] * MDP3.transition[state, a, t]:
                go(t, chance * p, [*went, (state, a, float(MDP3.reward[state, a]), t)])

    for s in np.flatnonzero(MDP3.start):
        go(int(s), float(MDP3.start[s]), [])
    return found


def expected(worth) -> np.ndarray:
    """`E Σ_t γᵗ ∇log π(a_t|s_t) worth(session, t)`, summed over every session there is."""
    total = np.zeros(POLICY.size)
    for chance, went in paths():
        for t, (s, a, _, _) in enumerate(went):
            total += chance * GAMMA**t * SCORE[s, a] * worth(went, t)
    return total


def to_go(went: list, t: int) -> float:
    return sum(GAMMA**i * r for i, (_, _, r, _) in enumerate(went[t:]))


def test_any_baseline_of_the_state_leaves_the_expectation():
    """Theorem 15 of the lecture, and its Lemma 5, by enumeration; one that depends on the action does not."""
    plain = expected(to_go)
    assert abs(sum(chance for chance, _ in paths()) - 1) < 1e-12
    of_state, of_time, of_action = RNG.normal(size=4), RNG.normal(size=STEPS), RNG.normal(size=(4, 2))
    based = expected(lambda went, t: to_go(went, t) - of_state[went[t][0]] - of_time[t] * of_state[went[t][0]] ** 2)
    np.testing.assert_allclose(based, plain, atol=1e-12)
    total = expected(lambda went, t: to_go(went, 0) / GAMMA**t)
    np.testing.assert_allclose(total, plain, atol=1e-12)
    changed = expected(lambda went, t: to_go(went, t) - of_action[went[t][0], went[t][1]])
    assert np.abs(changed - plain).max() > 0.1


def made_up() -> Sessions:
    """Sessions that end at 3, at 7, and not at all."""
    ends = np.zeros((8, 3))
    ends[2, 0] = ends[6, 1] = ends[4, 0] = 1
    alive = np.cumprod(np.concatenate([np.ones((1, 3)), 1 - ends[:-1]]), 0)
    reward, v, q = RNG.normal(size=(8, 3)), RNG.normal(size=(9, 3)), RNG.normal(size=(8, 3))
    arrays = reward, GAMMA * (1 - ends), alive, v[:-1], v[1:] * (1 - ends), q
    return Sessions(*(jnp.asarray(x, jnp.float32) for x in arrays))


def written_out(name: str, s: Sessions, b: int, t: int) -> float:
    """The formula of each estimate, for one session and one step."""
    reward, discount, alive, v, v_t, q = (np.asarray(x, float) for x in s)
    length = alive.sum(0).astype(int)
    delta = reward + discount * v_t - v

    def go(b: int, t: int) -> float:
        return sum(GAMMA ** (i - t) * reward[i, b] for i in range(t, length[b]))

    if t >= length[b]:
        return 0.0
    match name:
        case "total_return":
            return go(b, 0)
        case "discounted_return":
            return go(b, t)
        case "reward_to_go":
            worth = go(b, t)
        case "mean_baseline":
            worth = go(b, t) - np.mean([go(b, t) for b in range(3) for t in range(length[b])])
        case "value_baseline":
            worth = go(b, t) - v[t, b]
        case "action_value":
            worth = q[t, b]
        case "generalised":
            worth = sum((GAMMA * 0.7) ** (i - t) * delta[i, b] for i in range(t, length[b]))
        case "k_steps":
            last = min(t + 3, length[b])
            worth = sum(GAMMA ** (i - t) * reward[i, b] for i in range(t, last)) - v[t, b]
            worth += GAMMA ** (last - t) * v_t[last - 1, b] * (discount[last - 1, b] > 0)
        case "td_advantage":
            worth = delta[t, b]
        case _:
            worth = q[t, b] - v[t, b]
    return GAMMA**t * worth


ESTIMATES = {"total_return": estimates.total_return, "discounted_return": estimates.discounted_return,
             "reward_to_go": estimates.reward_to_go, "mean_baseline": estimates.mean_baseline,
             "value_baseline": estimates.value_baseline, "action_value": estimates.action_value,
             "generalised": estimates.generalised(0.7), "k_steps": estimates.k_steps(3),
             "td_advantage": estimates.td_advantage, "advantage": estimates.advantage}  # fmt: skip


@pytest.mark.parametrize("name", ESTIMATES)
def test_estimates_as_written_out(name: str):
    s = made_up()
    expected = [[written_out(name, s, b, t) for b in range(3)] for t in range(8)]
    np.testing.assert_allclose(ESTIMATES[name](s), expected, rtol=1e-4, atol=1e-5)


def test_sessions_begin_at_the_beginning_and_end_once():
    went, s = jax.jit(lambda key: sessions(MDP3, CHANCES, GAMMA, JUDGED.value, JUDGED.q, steps=30, batch=400, key=key))(
        jax.random.key(0)
    )
    begins = np.bincount(went.state_tm1[0], minlength=4) / 400
    np.testing.assert_allclose(begins, MDP3.start, atol=0.08)
    length = np.asarray(s.weight_tm1).sum(0).astype(int)
    for b in range(400):
        ended = np.flatnonzero(went.discount_t[:, b] == 0)
        assert length[b] == (ended[0] + 1 if len(ended) else 30)
    np.testing.assert_allclose(s.value_tm1[3], JUDGED.value[went.state_tm1[3]], rtol=1e-6)
    np.testing.assert_allclose(s.value_t[3], JUDGED.value[went.state_t[3]], rtol=1e-6)


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_mean_and_variance_of_generalised_advantages(lam: float):
    """Against sessions, with values that are wrong; and where these are right, the mean is the advantage."""
    wrong = np.array([1.0, -2.0, 3.0, 0.0])
    mean, variance = generalised_advantage(MDP3, CHANCES, wrong, GAMMA, lam)

    def first(key: jax.Array) -> tuple[jax.Array, ...]:
        went, s = sessions(MDP3, CHANCES, GAMMA, wrong, JUDGED.q, steps=40, batch=40_000, key=key)
        return went.state_tm1[0], went.action_tm1[0], estimates.generalised(lam)(s)[0]

    state, action, found = (np.asarray(x) for x in jax.jit(first)(jax.random.key(0)))
    for s, a in itertools.product(range(3), range(2)):
        here = found[(state == s) & (action == a)].astype(float)
        np.testing.assert_allclose(here.mean(), mean[s, a], atol=4 * here.std() / np.sqrt(len(here)))
        np.testing.assert_allclose(here.var(), variance[s, a], rtol=0.15)
    right, _ = generalised_advantage(MDP3, CHANCES, JUDGED.value, GAMMA, lam)
    np.testing.assert_allclose(right, JUDGED.advantage, atol=1e-10)
    assert np.abs(mean[:3] - JUDGED.advantage[:3]).max() > 0.5


def layered() -> MDP:
    """Sessions of three steps, whose chances under policies of quarters are whole multiples of 1/512."""
    p = np.zeros((7, 2, 7))
    p[:2, 0, 2:4], p[:2, 1, 2], p[2:4, 0, 5], p[2:4, 1, 4:6], p[4:, :, 6] = 0.5, 1.0, 1.0, 0.5, 1.0
    return MDP.of(p, np.random.default_rng(1).normal(size=(7, 2)), terminal=(6,), start=[0.5, 0.5, 0, 0, 0, 0, 0])


LAYERS, QUARTERS = layered(), np.array([[1, 3], [3, 1], [2, 2], [1, 3], [3, 1], [2, 2], [2, 2]]) / 4
TABLE, LOGITS = Softmax.table(LAYERS), np.log(QUARTERS)
OTHERS = np.full((7, 2), 0.5)


def every_session(acting: np.ndarray) -> Unroll:
    """A batch that holds each session as often as it comes in 512 of a policy: its mean is the expectation."""
    went = []

    def go(chance: float, path: list[tuple[int, int, float]]) -> None:
        s = path[-1][0]
        if LAYERS.terminal[s]:
            went.extend([path] * round(512 * chance))
            return
        for a, t in itertools.product(range(2), range(7)):
            if LAYERS.transition[s, a, t]:
                move = [*path[:-1], (s, a, path[-1][2]), (t, 0, float(LAYERS.reward[s, a]))]
                go(chance * float(acting[s, a] * LAYERS.transition[s, a, t]), move)

    for s in (0, 1):
        go(0.5, [(s, 0, 0.0)])
    assert len(went) == 512
    state, action, reward = np.array(went).transpose(2, 1, 0)
    state, action = state.astype(np.int32), action.astype(np.int32)
    ends, times = state == 6, np.arange(4)[:, None] + np.zeros((4, 512))
    step = TimeStep(state, reward.astype(np.float32), 1 - ends.astype(np.float32), times == 0, ends)
    said = np.log(acting).astype(np.float32)[state, action]
    batch = Unroll(step, action, {"log_prob": said}, (((), ()), None), jnp.zeros(512, jnp.int32), jnp.ones(512))
    return jax.tree.map(jnp.asarray, batch)


def ascent(agent: REINFORCE | A2C, value: np.ndarray, acting: np.ndarray) -> np.ndarray:
    """Where the agent's own loss moves the logits, `[S, A]`, with a table for a policy and for V."""
    agent = dataclasses.replace(agent, torso=MLP(()), normalise_observations=False)
    state = agent.init(jax.random.key(0), Spec(Discrete(7), Discrete(2), horizon=3))
    at = lambda n: (n.policy.layer.weight, n.value.weight)  # noqa: E731
    net = eqx.tree_at(at, state.net, (jnp.float32(LOGITS.T), jnp.float32(value[None])))
    batch = every_session(acting)
    slope = jax.grad(lambda net: agent.loss(net, state, (batch, batch.step.reward), None)[0])(net)
    return -np.asarray(slope.policy.layer.weight).T


RIGHT, WRONG = "right", "wrong"
BY_REINFORCE = {
    "total": (TotalReturn(), WRONG), "total less mean": (TotalReturn(Mean()), WRONG), "to go": (RewardToGo(), WRONG),
    "to go less mean": (RewardToGo(Mean()), WRONG), "to go less any V": (RewardToGo(Value()), WRONG), "TD": (NStep(1), RIGHT),
    "two steps": (NStep(2), RIGHT), "all steps": (NStep(3), WRONG), "GAE": (GAE(0.7), RIGHT), "GAE(1), any V": (GAE(1.0), WRONG),
    "V-trace": (VTrace(), WRONG), "V-trace, λ": (VTrace(0.7), RIGHT),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_REINFORCE)
def test_the_loss_of_reinforce_goes_along_the_exact_gradient(name: str):
    """With every estimator of `yozh.agents.estimators`, over all sessions there are. Those that bootstrap need the right V."""
    estimator, known = BY_REINFORCE[name]
    judged = discounted(LAYERS, QUARTERS, 0.8)
    value = judged.value if known == RIGHT else np.arange(7) * 0.7 - 1
    # the total return holds the theorem's discount already
    agent = REINFORCE(estimator=estimator, gamma=0.8, discount_states=not isinstance(estimator, TotalReturn), horizon=3)
    exact = gradient(TABLE, LOGITS.ravel(), judged).reshape(7, 2)
    np.testing.assert_allclose(ascent(agent, value, QUARTERS), exact, atol=1e-5)
    assert np.abs(exact).max() > 0.05


@pytest.mark.parametrize(
    "estimator", [NStep(1), NStep(3), GAE(0.7), VTrace()], ids=["TD", "all steps", "GAE", "V-trace"]
)
def test_the_loss_of_a2c_goes_along_the_exact_gradient(estimator):
    """It is a mean over steps, of which a session has three."""
    judged = discounted(LAYERS, QUARTERS, 1.0)
    found = 3 * ascent(A2C(estimator=estimator, gamma=1.0, length=3), judged.value, QUARTERS)
    np.testing.assert_allclose(found, gradient(TABLE, LOGITS.ravel(), judged).reshape(7, 2), atol=1e-5)


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_vtrace_goes_along_the_exact_gradient_where_others_acted(lam: float):
    """By its ratios, as long as they are not clipped; in the states that the others came to. Who does not look at ratios does not."""
    judged = discounted(LAYERS, QUARTERS, 1.0)._replace(visits=occupancy(LAYERS, OTHERS, 1.0))
    exact = gradient(TABLE, LOGITS.ravel(), judged).reshape(7, 2)

    def found(estimator):
        return 3 * ascent(A2C(estimator=estimator, gamma=1.0, length=3), judged.value, OTHERS)

    np.testing.assert_allclose(found(VTrace(lam, rho_clip=9.0, c_clip=9.0)), exact, atol=1e-5)
    assert np.abs(found(GAE(lam)) - exact).max() > 0.05
