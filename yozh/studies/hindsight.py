"""How much noise hindsight takes out of the gradient, where what an action did is only seen after much that it had no part in.

`DelayedEffect` (Harutyunyan et al. 2019, figure 2): the first action decides on ±1, which is paid after three rewards drawn from N(0, σ²). The
gradient with respect to the logit of the first action, by the return less V, has variance 3σ²/4; by hindsight with the true h, which credits
the action with the last state alone, it is 1/2 every time.
"""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from yozh import returns
from yozh.agents.hca import found
from yozh.core import TimeStep, Unroll
from yozh.environments.batched import Vectorised
from yozh.environments.delayed_effect import DelayedEffect
from yozh.studies.study import Outcome, drawn, main, near, panels

SIGMAS = (1.0, 2.0, 4.0)
LENGTH = 3
AT_ONCE = 1000


@functools.partial(jax.jit, static_argnames="n")
def episodes(sigma: Float[Array, ""], n: int) -> Unroll:
    """Whole episodes of the policy that tosses a coin, one a stream, `[LENGTH + 3, n]`."""
    env = Vectorised(DelayedEffect(sigma), n)
    state, first = env.reset(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), LENGTH + 3)

    def step(carry: tuple[PyTree, TimeStep], key: Array) -> tuple[tuple[PyTree, TimeStep], tuple[TimeStep, Array]]:
        action = jax.random.bernoulli(key, shape=(n,)).astype(jnp.int32)
        state, after = env.step(carry[0], action)
        return (state, after), (carry[1], action)

    _, (steps, action) = jax.lax.scan(step, (state, first), keys)
    return Unroll(steps, action, (), (), jnp.zeros(n, jnp.int32), jnp.ones(n))


def true_h(u: Unroll) -> Float[Array, "T T B 2"]:
    """`h(a | x_s, x_k+1)`, `[k, s, B, a]`: the policy's 1/2, but at the last place for the first action, where the sign is seen."""
    length = u.action.shape[0] - 1
    sign = u.step.obs[1:, :, -1]
    right = jnp.array([False, True])[None, None] == (sign > 0)[..., None]
    tells = (sign != 0)[:, None] & (jnp.arange(length) == 0)[None, :, None]
    return jnp.where(tells[..., None], right[:, None].astype(jnp.float32), 0.5)


def gradients(u: Unroll) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Of the logit of action 1 at the first step, by the return less V (which is 0) and by hindsight."""
    reward_t, discount_t, lambda_t, _ = returns.segment(u, 1.0, 1.0)
    taken = u.action[0].astype(jnp.float32)
    plain = (taken - 0.5) * returns.reward_to_go(reward_t, discount_t, lambda_t)[0]
    worth, _ = found(reward_t, discount_t, lambda_t, jnp.zeros_like(reward_t))
    q = jnp.sum(true_h(u) / 0.5 * worth[..., None], 0)[0]  # what is earned at once is 0
    return plain, 0.25 * (q[:, 1] - q[:, 0])


def run(repetitions: int = 100) -> Outcome:
    checks, spread = [], []
    for sigma in SIGMAS:
        plain, hindsight = (
            np.asarray(g, np.float64) for g in gradients(episodes(jnp.float32(sigma), repetitions * AT_ONCE))
        )
        known, error = 0.75 * sigma**2, 5.0 * np.sqrt(2.0 / len(plain))
        checks += [
            near(f"variance by the return less V, sigma {sigma:g}", plain.var(), known, error * (known + 0.25)),
            near(f"mean by the return less V, sigma {sigma:g}", plain.mean(), 0.5, 5 * np.sqrt(known / len(plain))),
            near(f"variance by hindsight, sigma {sigma:g}", hindsight.var(), 0.0, 1e-12),
            near(f"mean by hindsight, sigma {sigma:g}", hindsight.mean(), 0.5, 1e-6),
        ]
        spread.append((plain, hindsight))
    figure, (left, right) = panels(2)
    left.plot(SIGMAS, [p.var() for p, _ in spread], marker="o", label="return less V")
    left.plot(SIGMAS, [h.var() for _, h in spread], marker="o", label="hindsight, true h")
    left.set(title="variance of the gradient", xlabel="σ", ylabel="variance")
    left.legend(frameon=False)
    right.hist(spread[1][0], bins=80, density=True, color="C0")
    right.axvline(0.5, color="C1")
    right.set(title="σ = 2: gradients, and where hindsight's are", xlabel="gradient", ylabel="density")
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("hindsight", run, 100))
