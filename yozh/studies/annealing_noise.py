"""Learnt noise fades where there is something to learn from, and stays where nothing was ever seen (Fortunato et al. 2018).

DQN with noisy layers plays Catch, but the ball only ever falls in the first three of five columns. On the way the mean |σ| of the
last layer falls. Afterwards the values under draws of the noise are spread wider where the ball is in one of the other columns;
before, they are not.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

from yozh import networks
from yozh.agents import DQN
from yozh.agents.targets import Soft
from yozh.core import Env, Spec, TimeStep, restart
from yozh.environments.batched import Vectorised
from yozh.environments.catch import Catch
from yozh.networks import Auto
from yozh.networks.network import Network
from yozh.networks.noisy import mean_sigma, perturbed
from yozh.runners.fused import Metrics, Run
from yozh.studies.study import Check, Outcome, drawn, main, panels, watched

SEEN = 3
"""Columns in which the ball falls."""
LOOKS, TURNS = 25, 200
"""40,000 steps."""
DRAWS = 100


class Narrow(Env):
    """Catch with the ball in the first columns only."""

    whole: Catch = Catch()

    @property
    def spec(self) -> Spec:
        return self.whole.spec

    def reset(self, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        state, _ = self.whole.reset(key)
        state = state._replace(ball_x=state.ball_x % SEEN)
        return state, restart(self.whole.observe(state))

    def step(self, state: PyTree, action: PyTree, key: Key[Array, ""]) -> tuple[PyTree, TimeStep]:
        return self.whole.step(state, action, key)


def boards() -> tuple[Float[np.ndarray, "n rows columns"], Bool[np.ndarray, " n"]]:
    """Every observation in which the ball is still falling, and whether training shows the ball in that column."""
    catch = Catch()
    rows, columns = catch.rows, catch.columns
    x, y, paddle = (i.ravel() for i in np.meshgrid(range(columns), range(rows - 1), range(columns), indexing="ij"))
    seen = np.zeros((len(x), rows, columns), np.float32)
    seen[np.arange(len(x)), y, x] = seen[np.arange(len(x)), rows - 1, paddle] = 1.0
    return seen, x < SEEN


def spread(net: Network, obs: Float[Array, "n rows columns"], key: Key[Array, ""]) -> Float[Array, " n"]:
    """The deviation of the values of an observation under the noise, averaged over the actions."""
    first = jnp.zeros(len(obs), bool)
    q = jax.vmap(lambda k: networks.forward(perturbed(net, k), obs, (), first)[0])(jax.random.split(key, DRAWS))
    return q.std(0).mean((1, 2))


def learnt(repetitions: int) -> tuple[Float[np.ndarray, "repetitions looks"], ...]:
    """Over the run: mean |σ| of the last layer, mean return while exploring, and the spread of seen and of unseen boards."""
    agent = DQN(learning_rate=1e-3, target=Soft(0.01), torso=Auto((64,), "relu", "uniform"), noisy=True, double=True, capacity=20_000,
                warm_up=500)  # fmt: skip
    env, (obs, seen) = Vectorised(Narrow(), agent.streams), boards()

    def look(run: Run, metrics: Metrics) -> tuple[Array, ...]:
        wide = spread(run.state.net, jnp.asarray(obs), jax.random.key(0))
        episodes = jnp.maximum(metrics.tally.episodes, 1).astype(jnp.float32)
        score = jnp.divide(metrics.tally.returns, episodes)
        return mean_sigma(run.state.net.head), score, wide[seen].mean(), wide[~seen].mean()

    def one(key: Key[Array, ""]) -> tuple[Array, ...]:
        return watched(agent, env, key, looks=LOOKS, turns=TURNS, look=look)[1]

    return tuple(np.asarray(x) for x in jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), repetitions)))


def run(repetitions: int = 5) -> Outcome:
    sigma, score, seen, unseen = learnt(repetitions)
    steps = 8 * TURNS * np.arange(1, LOOKS + 1)
    checks = [
        Check("mean return at the end, exploring by noise", score[:, -1].mean(), 0.8, 1.0),
        Check(
            "mean |sigma| of the last layer, end over first look, worst run",
            (sigma[:, -1] / sigma[:, 0]).max(),
            0.0,
            0.9,
        ),
        Check("spread in unseen columns over seen ones, first look", (unseen[:, 0] / seen[:, 0]).mean(), 0.8, 1.25),
        Check("the same at the end, worst run", (unseen[:, -1] / seen[:, -1]).min(), 1.5, np.inf),
    ]
    figure, (left, right) = panels(2)
    left.plot(steps, sigma.T, color="C0", linewidth=0.8)
    left.set(title="noise", xlabel="environment steps", ylabel="mean |σ| of the last layer")
    right.plot(steps, unseen.mean(0), label="columns never seen")
    right.plot(steps, seen.mean(0), label="columns seen")
    right.set(title="values under the noise", xlabel="environment steps", ylabel="standard deviation", ylim=(0, None))
    right.legend(frameon=False)
    return Outcome(checks, drawn(figure))


if __name__ == "__main__":
    sys.exit(main("annealing_noise", run, 5))
