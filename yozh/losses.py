"""What training minimises, element by element: `[*b]` in, `[*b]` out; `weighted_mean` masks and averages.

Every loss is to be minimised, and nothing here stops a gradient: detach advantages and targets before you pass them
where they shall be constants.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Number = float | int | Float[Array, ""]
Batch = Float[Array, "*b"]


def weighted_mean(x: Batch, weight: Batch) -> Float[Array, ""]:
    """`sum(w x) / max(sum(w), 1)`: the mean over what counts, 0 where nothing does. `[*b], [*b] -> []`."""
    return jnp.sum(x * weight) / jnp.maximum(jnp.sum(weight), 1.0)


def weighted_variance(x: Batch, weight: Batch) -> Float[Array, ""]:
    """The variance of what counts. `[*b], [*b] -> []`."""
    return weighted_mean((x - weighted_mean(x, weight)) ** 2, weight)


def normalised(x: Batch, weight: Batch) -> Batch:
    """Less its mean, over its standard deviation, both of what counts. `[*b], [*b] -> [*b]`."""
    return (x - weighted_mean(x, weight)) / (jnp.sqrt(weighted_variance(x, weight)) + 1e-8)


def explained_variance(value: Batch, target: Batch, weight: Batch) -> Float[Array, ""]:
    """`1 - Var[G - V] / Var[G]` over what counts: 1 for perfect values, 0 for a constant, negative for worse than that."""
    return 1.0 - weighted_variance(target - value, weight) / (weighted_variance(target, weight) + 1e-8)


def select(values: Float[Array, "*b n"], action: Int[Array, "*b"]) -> Batch:
    """`values[..., action]`. `[*b, n], [*b] -> [*b]`."""
    # a mask and a sum: as fast as a gather up to hundreds of entries, and its gradient needs no scatter
    index = jax.lax.broadcasted_iota(jnp.int32, values.shape, values.ndim - 1)
    return jnp.sum(jnp.where(index == action[..., None].astype(jnp.int32), values, 0.0), -1)


def policy_gradient(log_prob: Batch, advantage: Batch) -> Batch:
    """`-log pi(a|s) A` (Sutton et al. 2000; Williams 1992)."""
    return -log_prob * advantage


def action_baseline(log_prob: Batch, worth: Batch, baseline: Batch, expected: Batch) -> Batch:
    """`-(log pi(a|s) (A - b(s, a)) + E_pi b(s, .))`: a baseline that knows the action, and the correction which that takes.

    `expected` must be differentiable in the policy: its gradient is the mean that the baseline took away; without it the
    gradient is biased. `worth` and `baseline` are constants (Gu et al. 2017, eq. 6; Wu et al. 2018; Tucker et al. 2018).
    """
    return -(log_prob * (worth - baseline) + expected)


def linear_baseline(q: Callable[[Array], Batch], action: Float[Array, "*b d"], mean: Float[Array, "*b d"]) -> tuple[Batch, Float[Array, "*b d"]]:  # fmt: skip
    """Q-Prop's baseline `b(s, a) = grad_a Q(s, mean) . (a - mean)`, and its slope; both are constants.

    `q` maps actions `[*b, d]` to `[*b]`, each to its own. What `action_baseline` takes for the expectation is `slope . mean` with the
    mean of the policy that learns, whose noise is symmetric: the deterministic policy gradient (Gu et al. 2017, eq. 5).
    """
    slope = jax.lax.stop_gradient(jax.grad(lambda a: jnp.sum(q(a)))(mean))
    return jax.lax.stop_gradient(jnp.sum(slope * (action - mean), -1)), slope


def ppo_clip(ratio: Batch, advantage: Batch, clip: Number) -> Batch:
    """`-min(r A, clip(r, 1 - eps, 1 + eps) A)`, `r = pi(a|s) / pi_old(a|s)` (Schulman et al. 2017, eq. 7)."""
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


def ppo_dual_clip(ratio: Batch, advantage: Batch, clip: Number, most: Number) -> Batch:
    """`ppo_clip`, but where `A < 0` never above `-most A`: `-max(min(r A, clip(r) A), most A)` (Ye et al. 2020, eq. 5; `most > 1`).

    A ratio of 100 under a negative advantage then weighs as much as one of `most`, and has no gradient.
    """
    once = ppo_clip(ratio, advantage, clip)
    return jnp.where(advantage < 0, jnp.minimum(once, -most * advantage), once)


def kl_k1(log_ratio: Batch) -> Batch:
    """`-log r`, `r = pi(a|s) / pi_old(a|s)`, a from pi_old: unbiased for `KL(pi_old || pi)`.

    Schulman 2020, "Approximating KL divergence".
    """
    return -log_ratio


def kl_k3(log_ratio: Batch) -> Batch:
    """`(r - 1) - log r`: as `kl_k1`, never negative and of less variance (Schulman 2020)."""
    return jnp.expm1(log_ratio) - log_ratio


def squared(prediction: Batch, target: Batch) -> Batch:
    """`1/2 (target - prediction)^2`: of values and of TD learning."""
    return 0.5 * jnp.square(target - prediction)


def huber(prediction: Batch, target: Batch, delta: Number) -> Batch:
    """`1/2 e^2` if `|e| <= delta`, else `delta (|e| - delta / 2)`, `e = target - prediction` (Huber 1964)."""
    error = jnp.abs(target - prediction)
    near = jnp.minimum(error, delta)
    return 0.5 * jnp.square(near) + delta * (error - near)


def clipped_value(value: Batch, value_old: Batch, target: Batch, clip: Number) -> Batch:
    """`1/2 max((V - R)^2, (V_old + clip(V - V_old, -eps, eps) - R)^2)`.

    PPO's value loss in OpenAI Baselines (ppo2), not in the paper; Huang et al. 2022, detail 9.
    """
    near = value_old + jnp.clip(value - value_old, -clip, clip)
    return jnp.maximum(squared(value, target), squared(near, target))


def q_target(reward_t: Batch, discount_t: Number | Batch, q_t: Float[Array, "*b n"]) -> Batch:
    """`r + gamma max_a Q(s', a)` (Watkins 1989; Mnih et al. 2015). `q_t [*b, n]`."""
    return reward_t + discount_t * jnp.max(q_t, -1)


def double_q_target(
    reward_t: Batch, discount_t: Number | Batch, q_t_selector: Float[Array, "*b n"], q_t_value: Float[Array, "*b n"]
) -> Batch:
    """`r + gamma Q'(s', argmax_a Q(s', a))` (van Hasselt et al. 2016, eq. 4): Q selects, Q' values. Each `[*b, n]`."""
    return reward_t + discount_t * select(q_t_value, jnp.argmax(q_t_selector, -1))


def project(support: Float[Array, " n"], worth: Float[Array, "*b m"], chance: Float[Array, "*b m"]) -> Float[Array, "*b n"]:  # fmt: skip
    """`p_i = sum_j [1 - |clip(y_j, z_min, z_max) - z_i| / dz]_0^1 c_j` on evenly spaced atoms `z`, of returns `y` with chances `c`.

    Bellemare et al. 2017, eq. 7. Keeps the mass, and the mean where no return is clipped.
    `support [n]`, `worth` and `chance` `[*b, m]`, `-> [*b, n]`.
    """
    n = len(support)
    # in units of dz counted from z_min, where the two shares of a return add up to 1 without rounding
    where = jnp.clip((worth - support[0]) / (support[-1] - support[0]) * (n - 1), 0.0, n - 1.0)
    if jax.default_backend() != "cpu":
        atom = jax.lax.broadcasted_iota(support.dtype, (*worth.shape[:-1], n, 1), worth.ndim - 1)
        return jnp.sum(jnp.clip(1.0 - jnp.abs(where[..., None, :] - atom), 0.0) * chance[..., None, :], -1)
    # each return deals its chance to two atoms: 0.1 ms for 128 times 101 of them, where all n m shares take 1.3
    left = jnp.floor(where)
    upper, row = (where - left) * chance, jnp.indices(worth.shape, sparse=True)[:-1]
    left = left.astype(jnp.int32)
    dealt = jnp.zeros((*worth.shape[:-1], n), worth.dtype).at[*row, left].add(chance - upper)
    return dealt.at[*row, jnp.minimum(left + 1, n - 1)].add(upper)


def project_categorical(
    support: Float[Array, " n"], probs: Float[Array, "*b n"], reward_t: Batch, discount_t: Batch
) -> Float[Array, "*b n"]:
    """`project` of the returns `r + gamma z_j` (Bellemare et al. 2017, algorithm 1).

    `support [n]`, `probs [*b, n]` of the next state, `-> [*b, n]`.
    """
    z = jnp.expand_dims(support, tuple(range(reward_t.ndim)))
    return project(support, reward_t[..., None] + discount_t[..., None] * z, probs)


def quantile_huber(
    quantile: Float[Array, "*b n"],
    target: Float[Array, "*b m"],
    tau: Float[Array, "*b n"],
    kappa: Number = 1.0,
    chance: Float[Array, "*b m"] | None = None,
) -> Batch:
    """`sum_i E_j rho_{tau_i}(target_j - quantile_i)`, `rho_tau(u) = |tau - 1{u < 0}| L_kappa(u)`, L the Huber loss.

    Dabney et al. 2018, eqs. 9 and 10, and algorithm 1 (kappa 1; IQN divides by kappa).
    `quantile` and `tau` are `[*b, n]`, `target` is `[*b, m]`, and so is `chance`, 1/m each unless given. All but `quantile` are constants.
    """
    chance = jnp.full_like(target, 1 / target.shape[-1]) if chance is None else chance
    return _quantile_huber(quantile, *jax.lax.stop_gradient((target, tau, jnp.asarray(kappa, jnp.float32), chance)))


@jax.custom_jvp
def _quantile_huber(quantile: Array, target: Array, tau: Array, kappa: Array, chance: Array) -> Array:
    return _quantile_huber_and_slope(quantile, target, tau, kappa, chance)[0]


@_quantile_huber.defjvp
def _(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    loss, slope = _quantile_huber_and_slope(*primals)
    return loss, jnp.sum(slope * tangents[0], -1)


def _quantile_huber_and_slope(quantile: Array, target: Array, tau: Array, kappa: Array, chance: Array) -> tuple[Array, Array]:  # fmt: skip
    """The loss `[*b]` and its derivative by each quantile `[*b, n]`.

    On a CPU one target after the other: derived automatically, the n m numbers of each of several steps go through memory, and for
    32 times 200 quantiles an update of DQN takes 3.8 ms and not 0.36.
    """

    def of(target: Array, chance: Array) -> tuple[Array, Array]:
        error = target - quantile
        clipped = jnp.clip(error, -kappa, kappa)  # L(u) = clip(u) (u - clip(u) / 2)
        force = jnp.where(error < 0, 1.0 - tau, tau) * clipped * chance
        return force * (error - 0.5 * clipped), -force

    each = jnp.moveaxis(jnp.stack([target, chance]), -1, 0)[..., None]
    if jax.default_backend() == "cpu":
        nothing = jnp.zeros_like(quantile)
        sums, _ = jax.lax.scan(lambda c, x: (jax.tree.map(jnp.add, c, of(*x)), None), (nothing, nothing), each)
    else:
        sums = jax.tree.map(lambda x: jnp.sum(x, 0), jax.vmap(lambda x: of(*x))(each))
    return jnp.sum(sums[0], -1), sums[1]


def squash(x: Batch, epsilon: Number) -> Batch:
    """`h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x`: large returns on a small scale (Pohlen et al. 2018, section 3.2)."""
    return jnp.sign(x) * (jnp.sqrt(jnp.abs(x) + 1.0) - 1.0) + epsilon * x


def unsquash(x: Batch, epsilon: Number) -> Batch:
    """The `y` with `h(y) = x`; the root of the quadratic equation is taken without cancellation, so that epsilon may be 0."""
    far = jnp.abs(x) + 1.0 + epsilon
    root = 2.0 * far / (jnp.sqrt(1.0 + 4.0 * epsilon * far) + 1.0)
    return jnp.sign(x) * (jnp.square(root) - 1.0)
