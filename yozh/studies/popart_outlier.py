"""One target in a thousand is enormous: what it does to a network that learns numbers as they come, clipped, or rescaled.

The binary regression of van Hasselt et al. 2016, section 4.1: numbers below 1,024 are to be told from their 16 bits, one after the other, and
every thousandth is 65,535. Told is the root mean squared error of the ordinary ones over the second half, before each is learnt
from, at the best step size of each way.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from yozh.agents.scales import Clipped, PopArt, Raw, Rewards, Same, Scale
from yozh.agents.values import Outcomes
from yozh.core import Spec
from yozh.losses import squared
from yozh.networks import MLP, QNetwork
from yozh.networks.network import Network
from yozh.spaces import Box, Discrete
from yozh.studies.study import Check, Outcome, drawn, main, panels

BITS, ORDINARY, SELDOM, STEPS = 16, 1024, 1000, 10_000
ALPHAS = tuple(10 ** (i / 2) for i in range(-10, -2))
WAYS: dict[str, tuple[Rewards, Scale]] = {
    "plain": (Raw(), Same()),
    "clipped": (Clipped(1.0), Same()),
    "PopArt": (Raw(), PopArt(0.01)),
}


def numbers(key: Key[Array, ""]) -> Float[Array, " steps"]:
    draw = jax.random.randint(key, (STEPS,), 0, ORDINARY)
    return jnp.where(jnp.arange(1, STEPS + 1) % SELDOM == 0, 2**BITS - 1, draw).astype(jnp.float32)


def errors(way: str, alpha: Float[Array, ""], key: Key[Array, ""]) -> Float[Array, " steps"]:
    """What is told less what is true, of each number before it is learnt from."""
    reward, scale = WAYS[way]
    draw, build = jax.random.split(key)
    spec = Spec(Box((BITS,)), Discrete(1))
    net = QNetwork(MLP((10, 10, 10), "tanh", "uniform"), None, spec, build, actions=1, dueling=False)
    net = scale.install(net, spec)

    def step(net: Network, target: Array) -> tuple[Network, Array]:
        bits = (target.astype(jnp.int32) >> jnp.arange(BITS, dtype=jnp.int32) & 1).astype(jnp.float32)
        wrong = scale.decode(net, net(bits, ())[0][0]) - target
        learnt = reward(target)
        net = scale.follow(net, Outcomes(learnt[None, None], jnp.ones((1, 1))), jnp.ones(1))
        slope = jax.grad(lambda net: squared(net(bits, ())[0][0], scale.encode(net, learnt)))(net)
        return jax.tree.map(lambda w, d: w - alpha * d, net, slope), wrong

    return jax.lax.scan(step, net, numbers(draw))[1]


def table(repetitions: int) -> dict[str, Float[np.ndarray, "alphas steps"]]:
    """The root mean squared error over the repetitions, of each number in its turn."""
    keys = jax.random.split(jax.random.key(0), repetitions)

    def each(way: str) -> Array:
        found = jax.vmap(jax.vmap(errors, (None, None, 0)), (None, 0, None))(way, jnp.asarray(ALPHAS), keys)
        return jnp.sqrt(jnp.mean(jnp.square(found), 1))

    return {way: np.asarray(jax.jit(each, static_argnums=0)(way)) for way in WAYS}


def run(repetitions: int = 10) -> Outcome:
    ordinary = np.arange(1, STEPS + 1) % SELDOM != 0
    late = ordinary & (np.arange(STEPS) >= STEPS // 2)
    figure, (left, right) = panels(2)
    best = {}
    for way, found in table(repetitions).items():
        error = np.sqrt(np.nanmean(np.square(found[:, late]), 1))
        best[way] = float(np.nanmin(error))
        left.loglog(ALPHAS, error, marker="o", markersize=3, label=way)
        usual = found[np.nanargmin(error)][ordinary]
        fifties = np.sqrt(np.mean(np.square(usual[: len(usual) // 50 * 50].reshape(-1, 50)), 1))
        right.semilogy(50 * np.arange(len(fifties)), fifties, linewidth=0.9, label=way)
    left.set(title="one number in 1,000 is 65,535", xlabel="step size", ylabel="error of the others", ylim=(50, 3000))
    right.set(title="at the best step size", xlabel="numbers learnt from")
    left.legend(frameon=False)
    checks = [
        Check("root mean squared error, PopArt", best["PopArt"], 0.0, 130.0),
        Check("plain, over PopArt's", best["plain"] / best["PopArt"], 2.0, np.inf),
        Check("clipped to 1, over PopArt's", best["clipped"] / best["PopArt"], 4.0, np.inf),
    ]
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("popart_outlier", run, 10))
