"""What a reward in t steps is worth to answers at several discounts, and when the later and larger one is chosen.

A sum over `Hyperbolic` heads is a sum of powers, Σ_i w_i γ_i^t, which stands for 1/(1 + k t) (Fedus et al. 2019, section 5). Beside it a
power of one discount, which halves in as many steps. Two rewards, 1 in t steps and 2 another 15 later: who discounts by a power
prefers the same one from wherever he looks, who discounts hyperbolically waits for the larger while both are far.
"""

import sys

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from yozh.agents.heads import Hyperbolic
from yozh.studies.study import Check, Outcome, drawn, main, near, panels

K, GAMMA, COUNT = 0.1, 0.99, 20
REACH, DELAY, LARGER = 60, 15, 2.0
STEPS = np.arange(REACH + DELAY + 1)


def weight() -> Float[np.ndarray, " t"]:
    """Of a reward in t steps."""
    heads, gamma = Hyperbolic(K, COUNT), jnp.float32(GAMMA)
    return np.asarray(heads.mixture(gamma)) @ np.asarray(heads.gammas(gamma))[:, None] ** STEPS


def gain(worth: Float[np.ndarray, " t"]) -> Float[np.ndarray, " reach"]:
    """How much more the later reward is worth, in units of the sooner one."""
    return LARGER * worth[DELAY:] / worth[: REACH + 1] - 1


def run() -> Outcome:
    found, meant, power = weight(), 1 / (1 + K * STEPS), 0.5 ** (K * STEPS)
    figure, (left, right) = panels(2)
    ways = {f"{COUNT} heads": found, "1/(1 + t/10)": meant, "a power": power}
    for (name, worth), style in zip(ways.items(), ("-", ":", "--"), strict=True):
        left.plot(STEPS[: REACH + 1], worth[: REACH + 1], style, label=name)
        right.plot(STEPS[: REACH + 1], gain(worth), style)
    left.set(title="worth of 1 in t steps", xlabel="t")
    right.set(title=f"gain by waiting {DELAY} steps for {LARGER:g}", xlabel="steps until the sooner one")
    right.axhline(0.0, color="grey", linewidth=0.6)
    left.legend(frameon=False)
    checks = [
        near("worth of a reward at once", found[0], 1.0, 1e-4),
        Check(
            f"largest distance from 1/(1 + k t) over {REACH} steps", np.abs(found - meant)[: REACH + 1].max(), 0.0, 0.02
        ),
        near("steps from which on the larger one is waited for", float((gain(found) > 0).argmax()), 6.0, 1.0),
        Check("changes of mind, by a power", float(np.count_nonzero(np.diff(gain(power) > 0))), 0.0, 0.0),
    ]
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("hyperbolic", run))
