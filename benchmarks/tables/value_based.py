"""Value-based methods, each as one change to the same plain DQN, and PQN.

The plain DQN of an environment has the settings of its preset without double, dueling and several steps; on LunarLander half of its
steps. C51's supports hold the discounted returns that can occur there. Nothing was tuned for a method, but for Rainbow's noise and support on
MinAtar, whose runs are those of the table `rainbow`. Cells that are empty were not run.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from yozh.agents import DQN, Linear
from yozh.agents.sampling import Prioritised
from yozh.agents.targets import Hard
from yozh.agents.values import C51, ImplicitQuantile, QuantileRegression
from yozh.core import Agent
from yozh.networks import Auto
from yozh.networks.noisy import Factorised
from yozh.presets import find, names

MINATAR = ("Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar", "Seaquest-MinAtar", "SpaceInvaders-MinAtar")

STEPS = {"CartPole-v1": 50_000, "Acrobot-v1": 100_000, "MountainCar-v0": 120_000, "LunarLander-v3": 200_000} | dict.fromkeys(MINATAR, 100_000)  # fmt: skip
"""Of every method in an environment."""

SUPPORT = {"CartPole-v1": (0.0, 100.0), "Acrobot-v1": (-100.0, 0.0), "MountainCar-v0": (-100.0, 0.0), "LunarLander-v3": (-300.0, 300.0)} | dict.fromkeys(MINATAR, (-10.0, 10.0))  # fmt: skip

MOUNTAIN_CAR = DQN(learning_rate=4e-3, epsilon=Linear(1.0, 0.07, 0.2), torso=Auto((256, 256), "relu", "uniform"), target=Hard(300),
                   batch=128, capacity=10_000, warm_up=1000, update_every=2, length=16, streams=1, gamma=0.98)  # fmt: skip
"""rl-zoo3's settings."""


def plain(env: str) -> Agent:
    if env == "MountainCar-v0":
        return MOUNTAIN_CAR
    preset = find("dqn", "Breakout-MinAtar" if env in MINATAR else env).agent
    return dataclasses.replace(preset, double=False, dueling=False, n_step=1)


def changed(**changes: Any) -> Callable[[str], Agent]:
    return lambda env: dataclasses.replace(plain(env), **changes)


def rainbow(env: str, **changes: Any) -> Agent:
    """All six; `changes` take some of them back. On MinAtar less noise (see `rainbow`)."""
    noise = Factorised(0.1 if env in MINATAR else 0.5)
    parts = dict(double=True, dueling=True, n_step=3, replay=Prioritised(0.5), noisy=noise, values=C51(*SUPPORT[env]))
    return dataclasses.replace(plain(env), **(parts | changes))


def pqn(env: str) -> Agent | None:
    return find("pqn", env).agent if ("pqn", env) in names() else None


METHODS: dict[str, Callable[[str], Agent | None]] = {
    "DQN": plain,
    "double": changed(double=True),
    "dueling": changed(dueling=True),
    "three steps": changed(n_step=3),
    "prioritised": changed(replay=Prioritised()),
    "noisy": changed(noisy=True),
    "C51": lambda env: dataclasses.replace(plain(env), values=C51(*SUPPORT[env])),
    "QR-DQN": changed(values=QuantileRegression(51)),
    "IQN": changed(values=ImplicitQuantile(8)),
    "Rainbow": rainbow,
    "PQN": pqn,
}

PUBLISHED = {
    "rl-zoo, DQN": {"CartPole-v1": "500", "Acrobot-v1": "-77", "MountainCar-v0": "-101", "LunarLander-v3": "154, 100k"},
    "rl-zoo, QR-DQN": {"CartPole-v1": "500", "Acrobot-v1": "-69", "MountainCar-v0": "-106", "LunarLander-v3": "70, 100k"},
    "MinAtar's DQN, 5M frames": {"Asterix-MinAtar": "17", "Breakout-MinAtar": "10", "Freeway-MinAtar": "50", "Seaquest-MinAtar": "20", "SpaceInvaders-MinAtar": "44"},
}  # fmt: skip
"""One run each of rl-zoo; after other numbers of steps where these are named. MinAtar's: means of Young and Tian (2019)."""

BORROWED = {"rainbow": MINATAR}

SCALE = "random actions = 0, the published DQN = 1"

RANDOM = {"CartPole-v1": 21.8, "Acrobot-v1": -499.3, "MountainCar-v0": -200.0, "LunarLander-v3": -185.1, "Asterix-MinAtar": 0.45,
          "Breakout-MinAtar": 0.46, "Freeway-MinAtar": 0.41, "Seaquest-MinAtar": 0.07, "SpaceInvaders-MinAtar": 4.0}  # fmt: skip
"""Mean returns of 500 episodes of random actions."""


def between(env: str, scores: Callable[[str], list[float]]) -> tuple[float, float]:
    """The returns that are 0 and 1 there."""
    published = next(figures[env] for name, figures in PUBLISHED.items() if env in figures and "QR" not in name)
    return RANDOM[env], float(published.split(",")[0])
