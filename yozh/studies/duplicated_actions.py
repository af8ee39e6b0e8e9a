"""Actions that do the same: what a value that all of them share is good for (Wang et al. 2016, section 4.1).

A corridor up, along and up again, with an end worth 1; up, right, down, left, stay, and copies of stay. The policy on the shortest way,
which takes a random action in one step of five, is followed and valued by TD(0) with expected values of the next action, by a network of
one stream and by one that sums a value and advantages (dueling). Told is the squared error over all states and actions.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from yozh.core import Spec
from yozh.losses import select, squared
from yozh.networks import MLP, QNetwork
from yozh.spaces import Box, Discrete
from yozh.studies.study import Check, Outcome, drawn, main, panels
from yozh.tabular import MDP, action_values, evaluate, follow

GAMMA, EPSILON, ALPHA = 0.99, 0.2, 0.1
STEPS, LOOKS = 40_000, 40
ACTIONS = (5, 10, 20)
MOVES = np.array([(0, 1), (1, 0), (0, -1), (-1, 0), (0, 0)])
WAY = [*((0, y) for y in range(9)), *((x, 9) for x in range(50)), *((49, y) for y in range(10, 19))]
"""The corridor's cells from its beginning to its end."""


def corridor(actions: int) -> tuple[MDP, Float[np.ndarray, "S A"]]:
    """The problem, and the policy."""
    place, last = {cell: i for i, cell in enumerate(WAY)}, len(WAY) - 1
    ways, best = np.zeros((len(WAY), actions, len(WAY))), np.zeros((len(WAY), actions))
    for i, cell in enumerate(WAY):
        for a in range(actions):
            follows = place.get(tuple(np.add(cell, MOVES[min(a, 4)]).tolist()), i)
            ways[i, a, follows] = 1.0
            best[i, a] = follows == i + 1 or (i == last and a == 0)
    mdp = MDP.of(ways, ways[:, :, last], terminal=(last,))
    return mdp, EPSILON / actions + (1 - EPSILON) * best


def errors(actions: int, dueling: bool, repetitions: int) -> Float[np.ndarray, "repetitions looks"]:
    """Squared error, summed over states and actions, after each stretch of steps."""
    mdp, policy = corridor(actions)
    known = jnp.asarray(action_values(mdp, evaluate(mdp, policy, GAMMA), GAMMA)[:-1], jnp.float32)
    chance, features = jnp.asarray(policy, jnp.float32), jnp.eye(mdp.states)

    def one(key: Key[Array, ""]) -> Array:
        build, walk = jax.random.split(key)
        spec = Spec(Box((mdp.states,)), Discrete(actions))
        net = QNetwork(MLP((50, 50), "relu", "uniform"), None, spec, build, actions=actions, dueling=dueling)
        walked = jax.tree.map(lambda x: x.reshape(LOOKS, -1), follow(mdp, policy, STEPS, walk))

        def learn(net: QNetwork, went: tuple) -> tuple[QNetwork, None]:
            state, action, reward, discount, follows = went
            target = reward + GAMMA * discount * jnp.dot(net(features[follows], ())[0], chance[follows])
            slope = jax.grad(lambda net: squared(select(net(features[state], ())[0], action), target))(net)
            return jax.tree.map(lambda w, d: w - ALPHA * d, net, slope), None

        def stretch(net: QNetwork, went: tuple) -> tuple[QNetwork, Array]:
            net, _ = jax.lax.scan(learn, net, went)
            told = jax.vmap(lambda x: net(x, ())[0])(features[:-1])
            return net, jnp.sum(jnp.square(told - known))

        return jax.lax.scan(stretch, net, walked)[1]

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), repetitions)))


def middle(error: Float[np.ndarray, "repetitions looks"]) -> Float[np.ndarray, " looks"]:
    """The geometric mean of the repetitions."""
    return np.exp(np.log(error).mean(0))


def run(repetitions: int = 5) -> Outcome:
    shares, (figure, axes) = {}, panels(len(ACTIONS))
    for actions, ax in zip(ACTIONS, axes, strict=True):
        single, dueling = (middle(errors(actions, which, repetitions)) for which in (False, True))
        shares[actions] = np.exp(np.log(dueling / single).mean())
        at = STEPS // LOOKS * np.arange(1, LOOKS + 1)
        ax.semilogy(at, single, label="single stream")
        ax.semilogy(at, dueling, label="dueling")
        ax.set(title=f"{actions} actions", xlabel="steps", ylabel="squared error")
        ax.legend(frameon=False)
    few, *_, many = shares.values()
    checks = [
        Check(f"{n} actions: dueling's error over the single stream's", float(x), 0.0, 0.6) for n, x in shares.items()
    ]
    checks.append(Check(f"that of {ACTIONS[-1]} actions over that of {ACTIONS[0]}", float(many / few), 0.0, 1.0))
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("duplicated_actions", run, 5))
