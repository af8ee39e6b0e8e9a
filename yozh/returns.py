"""What an action was worth: the boundary rule, and the estimators that rest on it.

A transition has a left end `_tm1` (where the action was chosen) and a right end `_t` (where it arrived). Arrays are
`[T, *b]`, time first; `discount_t` and `lambda_t` may also be one number. The estimators know nothing of episodes:
`segment` puts every boundary into the vectors. Nothing here stops a gradient: detach the values that you pass where
a target shall be a constant (the discount and lambda stay differentiable, which meta-gradients need).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yozh.core import TimeStep, Unroll

Number = float | int | Float[Array, ""]
Sequence = Float[Array, "T *b"]


class Segment(NamedTuple):
    """The T transitions of an unroll as any estimator takes them."""

    reward_t: Float[Array, "T B"]
    """`[T, B]`"""
    discount_t: Float[Array, "T B"]
    """`[T, B]`: gamma, 0 where the episode terminated."""
    lambda_t: Float[Array, "T B"]
    """`[T, B]`: lambda, 0 where the episode ended: bootstrap there, never trace into the next episode."""
    weight_tm1: Float[Array, "T B"]
    """`[T, B]`: 1, but 0 for the pseudo-transition from the last step of an episode to the first of the next."""


def segment(u: Unroll, gamma: Number, lam: Number) -> Segment:
    """The only place where episode boundaries are interpreted.

    A terminated step has no future (discount 0). A truncated one has the future that its own value predicts
    (discount gamma, lambda 0). The step after either is a reset: its action was ignored and carries no weight.
    """
    last = u.step.last.astype(u.step.reward.dtype)
    return Segment(u.step.reward[1:], gamma * u.step.discount[1:], lam * (1.0 - last[1:]), 1.0 - last[:-1])


def _backward(a: Sequence, b: Number | Sequence, x: Float[Array, "*b"]) -> Sequence:
    """`x_t = a_t + b_t x_{t+1}`, solved from the end, `x_T = x`.

    A plain scan: XLA makes one CPU loop of it (128 steps of 4 streams: .5 us; unrolled 16 times 17 us;
    `associative_scan` 1.6 us and six times the compile time).
    """

    def step(x, ab):
        x = ab[0] + ab[1] * x
        return x, x

    return jax.lax.scan(step, x, (a, jnp.broadcast_to(b, a.shape)), reverse=True)[1]


def td_error(
    reward_t: Sequence, discount_t: Number | Sequence, value_tm1: Sequence, value_t: Sequence
) -> Sequence:  # fmt: skip
    """`delta_t = r_{t+1} + gamma_{t+1} V(s_{t+1}) - V(s_t)` (Sutton & Barto 2018, eq. 6.5). `[T, *b]`."""
    return reward_t + discount_t * value_t - value_tm1


def discounted_return(reward_t: Sequence, discount_t: Number | Sequence, bootstrap: Float[Array, "*b"]) -> Sequence:
    """`G_t = r_{t+1} + gamma_{t+1} G_{t+1}`, `G_T = bootstrap` (Sutton & Barto 2018, eq. 3.9). `[T, *b]`.

    Stops at termination (discount 0), not at truncation: for that see `reward_to_go` and `lambda_return`.
    """
    return _backward(reward_t, discount_t, bootstrap)


def reward_to_go(reward_t: Sequence, discount_t: Number | Sequence, lambda_t: Number | Sequence) -> Sequence:
    """What the unroll still pays in this episode: `G_t = r_{t+1} + gamma_{t+1} lambda_{t+1} G_{t+1}`, `G_T = 0`.

    `[T, *b]`. With `segment(u, gamma, 1)` the sum ends where the episode or the unroll ends: nothing is bootstrapped.
    """
    return discounted_return(reward_t, discount_t * lambda_t, jnp.zeros_like(reward_t[0]))


def lambda_return(
    reward_t: Sequence, discount_t: Number | Sequence, lambda_t: Number | Sequence, value_t: Sequence
) -> Sequence:  # fmt: skip
    """`G_t = r_{t+1} + gamma_{t+1} ((1 - lambda_{t+1}) V(s_{t+1}) + lambda_{t+1} G_{t+1})`, `G_T = V(s_T)`. `[T, *b]`.

    Sutton & Barto 2018, eq. 12.18. With lambda 1 (from `segment(u, gamma, 1)`) it is the longest n-step return.
    """
    a = reward_t + discount_t * (1.0 - lambda_t) * value_t
    return _backward(a, discount_t * lambda_t, value_t[-1])


def n_step_return(
    reward_t: Sequence, discount_t: Number | Sequence, lambda_t: Number | Sequence, value_t: Sequence, n: int
) -> Sequence:  # fmt: skip
    """`G_t = r_{t+1} + gamma r_{t+2} + ... + gamma^{n-1} r_{t+n} + gamma^n V(s_{t+n})`. `[T, *b]`.

    Sutton & Barto 2018, eq. 7.1, as n turns of the lambda return's equation from `G = V`; `n >= 1`. With lambda 0 at
    a last step (`segment(u, gamma, 1)`) it bootstraps there; at the end of the unroll it bootstraps from `V(s_T)`.
    """
    a = reward_t + discount_t * (1.0 - lambda_t) * value_t
    b = jnp.broadcast_to(discount_t * lambda_t, a.shape)

    def longer(_, g):
        return a + b * jnp.concatenate([g[1:], value_t[-1:]])

    return jax.lax.fori_loop(1, min(n, len(a)), longer, reward_t + discount_t * value_t)


def gae(
    reward_t: Sequence,
    discount_t: Number | Sequence,
    lambda_t: Number | Sequence,
    value_tm1: Sequence,
    value_t: Sequence,
) -> Sequence:
    """`A_t = sum_{l >= 0} (gamma lambda)^l delta_{t+l}` (Schulman et al. 2016, eq. 16). `[T, *b]`.

    Lambda 0 gives the TD error, lambda 1 the return minus `V(s_t)`; `A_t + V(s_t)` is the lambda return.
    """
    delta = td_error(reward_t, discount_t, value_tm1, value_t)
    return _backward(delta, discount_t * lambda_t, jnp.zeros_like(delta[0]))


class VTrace(NamedTuple):
    """What `vtrace` estimates."""

    target: Sequence
    """`[T, *b]`: `v_s`, what the value of `s_tm1` should be."""
    advantage: Sequence
    """`[T, *b]`: of the action at `s_tm1` in the policy gradient, already multiplied by `rho`."""
    rho: Sequence
    """`[T, *b]`: clipped importance ratio."""


def vtrace(
    reward_t: Sequence,
    discount_t: Number | Sequence,
    lambda_t: Number | Sequence,
    value_tm1: Sequence,
    value_t: Sequence,
    ratio_tm1: Sequence,
    rho_clip: Number = 1.0,
    c_clip: Number = 1.0,
) -> VTrace:
    """V-trace (Espeholt et al. 2018, eq. 1, remark 2, section 4.2) from `ratio = pi(a|s) / mu(a|s)`; each `[T, *b]`.

    `v_s = V(x_s) + sum_{t >= s} gamma^{t-s} (prod_{i=s}^{t-1} c_i) delta_t V`, where
    `delta_t V = rho_t (r_t + gamma V(x_{t+1}) - V(x_t))`, `rho_t = min(rho_clip, ratio_t)`,
    `c_i = lambda min(c_clip, ratio_i)`; and `advantage_s = rho_s (r_s + gamma v_{s+1} - V(x_s))`, where `v_{s+1}` is
    mixed with `V(x_{s+1})` by lambda. Both clips are 1 in the paper.
    """
    rho = jnp.minimum(ratio_tm1, rho_clip)
    delta = rho * td_error(reward_t, discount_t, value_tm1, value_t)
    c = lambda_t * jnp.minimum(ratio_tm1, c_clip)
    correction = _backward(delta, discount_t * c, jnp.zeros_like(delta[0]))
    correction_t = jnp.concatenate([correction[1:], jnp.zeros_like(correction[:1])])
    advantage = delta + rho * discount_t * lambda_t * correction_t
    return VTrace(value_tm1 + correction, advantage, rho)


def retrace(
    reward_t: Sequence,
    discount_t: Number | Sequence,
    lambda_t: Number | Sequence,
    q_tm1: Sequence,
    value_t: Sequence,
    ratio_tm1: Sequence,
) -> Sequence:
    """Retrace(lambda): targets for `Q(x_s, a_s)` (Munos et al. 2016, eqs. 3 and 4). `[T, *b]`.

    `Q(x_s, a_s) + sum_{t >= s} gamma^{t-s} (prod_{i=s+1}^t c_i) (r_t + gamma E_pi Q(x_{t+1}, .) - Q(x_t, a_t))`,
    `c_i = lambda min(1, pi(a_i|x_i) / mu(a_i|x_i))`. `q_tm1` is Q of the actions taken, `value_t` is `E_pi Q(x_t, .)`.
    """
    delta = td_error(reward_t, discount_t, q_tm1, value_t)
    ratio_t = jnp.concatenate([ratio_tm1[1:], jnp.zeros_like(ratio_tm1[:1])])
    c_t = lambda_t * jnp.minimum(ratio_t, 1.0)
    return q_tm1 + _backward(delta, discount_t * c_t, jnp.zeros_like(delta[0]))


class Window(NamedTuple):
    """The first transition of each window of n+1 steps, its rewards summed up to the bootstrap."""

    reward: Float[Array, " B"]
    """`[B]`: `r_1 + gamma r_2 + ...`, up to the episode's last step or the window's."""
    discount: Float[Array, " B"]
    """`[B]`: the product of the discounts up to there."""
    step_t: TimeStep
    """`[B, ...]`: the one step to bootstrap from."""
    weight_tm1: Float[Array, " B"]
    """`[B]`: 0 where the window begins at the last step of an episode."""


def window(u: Unroll, gamma: Number) -> Window:
    """The n-step return of the first step of each window, apart from its bootstrap, `[n+1, B] -> [B]`."""
    reward_t, discount_t, go_t, weight_tm1 = segment(u, gamma, 1.0)
    reach = jnp.cumprod(jnp.concatenate([jnp.ones_like(go_t[:1]), go_t[:-1]]), 0)
    length = reach.sum(0).astype(jnp.int32)
    step_t = jax.tree.map(lambda x: x[length, jnp.arange(x.shape[1])], u.step)
    ahead = jnp.cumprod(jnp.where(reach > 0, discount_t, 1.0), 0)
    before = jnp.concatenate([jnp.ones_like(ahead[:1]), ahead[:-1]])
    return Window(jnp.sum(reach * before * reward_t, 0), ahead[-1], step_t, weight_tm1[0])
