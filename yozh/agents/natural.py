"""The natural gradient: the Fisher matrix as a product with it, and the linear equation solved by such products alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yozh.distributions import Distribution
from yozh.losses import weighted_mean

Vector = Float[Array, " n"]


def fisher_product(policy: Callable[[Vector], Distribution], weights: Vector, counts: Float[Array, "*b"]) -> Callable[[Vector], Vector]:  # fmt: skip
    """`v -> F v`, where F is the Hessian of the mean of `KL(π_θ₀ ‖ π_θ)` over what counts, at `θ = θ₀ = weights`.

    `F = E[ Jᵀ M J ]`: J, the derivative of a distribution's parameters by the weights, is pushed through and pulled back; M is
    the Hessian of the KL divergence by these parameters (Schulman et al. 2015, appendix C.1). The network is gone through
    once, here; a product costs a linear pass forward and one back.
    """
    here, push = jax.linearize(policy, weights)
    pull = jax.linear_transpose(push, weights)
    slope = jax.grad(lambda there: weighted_mean(here.kl(there), counts))

    def product(v: Vector) -> Vector:
        (fv,) = pull(jax.jvp(slope, (here,), (push(v),))[1])
        return fv

    return product


def conjugate_gradients(product: Callable[[Vector], Vector], b: Vector, steps: int, tolerance: float = 1e-10) -> Vector:
    """x with `A x ≈ b`, A symmetric and positive, known by its products (Hestenes and Stiefel 1952).

    It stops after so many steps, or when the squared norm of what is left of b is at the tolerance.
    """

    def going(carry: tuple[Array, ...]) -> Array:
        i, *_, left = carry
        return (i < steps) & (left > tolerance)

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        i, x, residual, direction, left = carry
        a_direction = product(direction)
        far = left / jnp.dot(direction, a_direction)
        x, residual = x + far * direction, residual - far * a_direction
        now = jnp.dot(residual, residual)
        return i + 1, x, residual, residual + now / left * direction, now

    return jax.lax.while_loop(going, step, (jnp.int32(0), jnp.zeros_like(b), b, b, jnp.dot(b, b)))[1]


Judge = Callable[[Vector], tuple[Float[Array, ""], Float[Array, ""]]]
"""From weights to the surrogate, which shall grow, and the KL divergence to the policy that acted."""


def backtrack(judge: Judge, weights: Vector, step: Vector, *, shrink: Float[Array, ""], tries: int, delta: Float[Array, ""]) -> tuple[Vector, dict[str, Array]]:  # fmt: skip
    """The first of `weights + shrinkʲ step`, j < tries, that has a larger surrogate and a KL divergence of at most delta; `weights`
    themselves, to the bit, where none has. With it how many were tried, whether one was taken and the KL divergence of that."""
    before, _ = judge(weights)

    def going(carry: tuple[Array, ...]) -> Array:
        tried, _, _, accepted, _ = carry
        return (tried < tries) & ~accepted

    def shorter(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        tried, share, *_ = carry
        there = weights + share * step
        surrogate, kl = judge(there)
        accepted = (kl <= delta) & (surrogate > before)
        return tried + 1, shrink * share, jnp.where(accepted, there, weights), accepted, jnp.where(accepted, kl, 0.0)

    start = (jnp.int32(0), jnp.ones(()), weights, jnp.zeros((), bool), jnp.zeros(()))
    tried, _, found, accepted, kl = jax.lax.while_loop(going, shorter, start)
    return found, {"line_search_steps": tried.astype(jnp.float32), "accepted": accepted.astype(jnp.float32), "kl": kl}
