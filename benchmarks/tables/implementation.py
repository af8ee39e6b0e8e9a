"""Which matters more, the algorithm or its code-level options? PPO and TRPO with and without them, and PPO less one at a time.

The options are those of Engstrom et al. (2020): value clipping, reward scaling, orthogonal initialisation, a falling learning rate,
observations normalised and clipped, tanh, gradient clipping; and advantages normalised. Reward scaling has the clip to ±10 within it. Sizes and
rates are the same for all.

On Pendulum the options weigh 766 in PPO, and the algorithm, TRPO in place of PPO, 54: the sign of Engstrom et al. Nearly all of it is reward scaling.
In TRPO they weigh nothing there. On CartPole and Acrobot PPO without all of them is as good as with all, though without reward scaling
or tanh alone it is worse: they hang together.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from yozh.agents import PPO, TRPO, Linear
from yozh.agents.estimators import GAE
from yozh.core import Agent
from yozh.networks import MLP

STEPS = {"CartPole-v1": 30_000, "Acrobot-v1": 50_000, "Pendulum-v1": 150_000, "LunarLanderContinuous-v3": 200_000}
"""Of every method in an environment: too few for all of them to end at the top, where nothing tells them apart."""

GAMMA = {"CartPole-v1": 0.98, "Acrobot-v1": 0.99, "Pendulum-v1": 0.95, "LunarLanderContinuous-v3": 0.999}
SIZES = dict(estimator=GAE(0.95), streams=8, length=128)
RATE = 1e-3


def ppo(env: str) -> Agent:
    return PPO(learning_rate=Linear(RATE, 0.0), gamma=GAMMA[env], epochs=10, minibatches=16, clip_value=True,
               normalise_observations=True, scale_rewards=True, torso=MLP((64, 64), "tanh", "orthogonal"), **SIZES)  # fmt: skip


def trpo(env: str) -> Agent:
    return TRPO(learning_rate=Linear(RATE, 0.0), gamma=GAMMA[env], epochs=10, minibatches=16, normalise_observations=True,
                scale_rewards=True, max_gradient_norm=0.5, torso=MLP((64, 64), "tanh", "orthogonal"), **SIZES)  # fmt: skip


WITHOUT: dict[str, dict[str, Any]] = {
    "value clipping": dict(clip_value=False),
    "reward scaling": dict(scale_rewards=False),
    "orthogonal initialisation": dict(torso=MLP((64, 64), "tanh", "uniform")),
    "falling learning rate": dict(learning_rate=RATE),
    "observation normalisation": dict(normalise_observations=False),
    "tanh": dict(torso=MLP((64, 64), "relu", "orthogonal")),
    "gradient clipping": dict(max_gradient_norm=math.inf),
    "advantage normalisation": dict(normalise_advantage=False),
}


def bare(whole: Callable[[str], Agent]) -> Callable[[str], Agent]:
    """Without any of them."""
    changes = {k: v for one in WITHOUT.values() for k, v in one.items()} | dict(torso=MLP((64, 64), "relu", "uniform"))

    def agent(env: str) -> Agent:
        made = whole(env)
        return dataclasses.replace(made, **{k: v for k, v in changes.items() if hasattr(made, k)})

    return agent


def less(part: str) -> Callable[[str], Agent]:
    return lambda env: dataclasses.replace(ppo(env), **WITHOUT[part])


METHODS: dict[str, Callable[[str], Agent | None]] = {
    "PPO": ppo,
    "PPO without any": bare(ppo),
    "TRPO": trpo,
    "TRPO without any": bare(trpo),
    **{f"PPO without {part}": less(part) for part in WITHOUT},
}
