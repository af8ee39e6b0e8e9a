"""Policy gradients and black-box search, every method with the same budget of steps in an environment.

Discount and the scale of observations and rewards belong to the environment and are the same for all. Where a preset exists for the
method and the environment it is taken, with its own, but for REINFORCE and VPG, which have the same settings everywhere: REINFORCE
those of its preset for CartPole, VPG its defaults. PPO, MDPO, TRPO, NPG, Q-Prop and PPG learn from unrolls of 16 x 128 steps, PPO and MDPO with a
rate that falls from 1e-3, with MuJoCo's bodies from 3e-4, which is usual there (1e-3 was run first, on the same seeds: PPO reached 1,680, 2,278
and 1,472 on HalfCheetah); all else are the agent's defaults. Nothing else was tuned for a cell. With MuJoCo's bodies there are three
seeds. On the LunarLanders REINFORCE (but for that with the total return, on LunarLander-v3) and VPG were run before their
statistics of observations stood still within a batch. Cells that are empty were not run (REINFORCE on MuJoCo's bodies), or the method takes no such actions.
"""

from collections.abc import Callable
from typing import Any

from yozh.agents import A2C, ACER, ARS, ES, MDPO, NPG, PPG, PPO, QAC, REINFORCE, TRPO, VPG, Linear, QProp
from yozh.agents.estimators import GAE, Estimator, Mean, RewardToGo, TotalReturn, Value
from yozh.agents.penalties import Adaptive
from yozh.core import Agent
from yozh.presets import find, names

STEPS = {"CartPole-v1": 300_000, "Acrobot-v1": 500_000, "MountainCar-v0": 500_000, "Pendulum-v1": 300_000,
         "LunarLander-v3": 500_000, "LunarLanderContinuous-v3": 500_000, "HalfCheetah-v5": 1_000_000, "Hopper-v5": 1_000_000}  # fmt: skip
"""Of every method in an environment."""

SCALED = dict(normalise_observations=True, scale_rewards=True)

WORLDS: dict[str, dict[str, Any]] = {
    "CartPole-v1": dict(gamma=0.98),
    "Acrobot-v1": dict(gamma=0.99, **SCALED),
    "MountainCar-v0": dict(gamma=0.99, **SCALED),
    "Pendulum-v1": dict(gamma=0.95, **SCALED),
    "LunarLander-v3": dict(gamma=0.999, **SCALED),
    "LunarLanderContinuous-v3": dict(gamma=0.999, **SCALED),
    "HalfCheetah-v5": dict(gamma=0.99, **SCALED),
    "Hopper-v5": dict(gamma=0.99, **SCALED),
}

HORIZON = {"CartPole-v1": 500, "Acrobot-v1": 500, "MountainCar-v0": 200, "Pendulum-v1": 200}
"""Of the longest episode; 1,000 in the others."""

DISCRETE = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "LunarLander-v3")

MUJOCO = ("HalfCheetah-v5", "Hopper-v5")

LONG = dict(streams=16, length=128)
"""Unrolls of 2,048 steps, as is usual for these."""


def of(kind: str, make: type[Agent], **settings: Any) -> Callable[[str], Agent]:
    def agent(env: str) -> Agent:
        return find(kind, env).agent if (kind, env) in names() else make(**(WORLDS[env] | settings))

    return agent


def episodic(make: type[Agent], **settings: Any) -> Callable[[str], Agent]:
    return lambda env: make(**(WORLDS[env] | {"horizon": HORIZON.get(env, 1000)} | settings))


def search(kind: str, make: type[ES]) -> Callable[[str], Agent]:
    """Scores are whole returns, without discount and unscaled."""

    def agent(env: str) -> Agent:
        if (kind, env) in names():
            return find(kind, env).agent
        return make(horizon=HORIZON.get(env, 1000), normalise_observations=env != "CartPole-v1")

    return agent


def reinforce(estimator: Estimator) -> Callable[[str], Agent]:
    return episodic(REINFORCE, estimator=estimator, learning_rate=5e-3, normalise_advantage=True, streams=16)


def discrete(kind: str, make: type[Agent], **settings: Any) -> Callable[[str], Agent | None]:
    """For a method that takes no other actions, and rewards as they come."""

    def agent(env: str) -> Agent | None:
        if env not in DISCRETE:
            return None
        world = {k: v for k, v in WORLDS[env].items() if k != "scale_rewards"}
        return find(kind, env).agent if (kind, env) in names() else make(**(world | settings))

    return agent


def ppo_like(kind: str, make: type[Agent], **settings: Any) -> Callable[[str], Agent]:
    def agent(env: str) -> Agent:
        rate = Linear(3e-4 if env in MUJOCO else 1e-3, 0.0)
        return of(kind, make, learning_rate=rate, epochs=10, minibatches=32, **LONG, **settings)(env)

    return agent


METHODS: dict[str, Callable[[str], Agent | None]] = {
    "REINFORCE, total return": reinforce(TotalReturn()),
    "REINFORCE, total return less mean": reinforce(TotalReturn(Mean())),
    "REINFORCE, reward to go": reinforce(RewardToGo()),
    "REINFORCE, reward to go less mean": reinforce(RewardToGo(Mean())),
    "REINFORCE, reward to go less value": reinforce(RewardToGo(Value())),
    "REINFORCE, GAE": reinforce(GAE(0.95)),
    "VPG": episodic(VPG),
    "QAC": discrete("qac", QAC, streams=16),
    "A2C": of("a2c", A2C, streams=16),
    "ACER": discrete("acer", ACER),
    "NPG": of("npg", NPG, **LONG),
    "TRPO": of("trpo", TRPO, **LONG),
    "Q-Prop": lambda env: None if env in DISCRETE else of("qprop", QProp, **LONG)(env),
    "PPO": ppo_like("ppo", PPO),
    "PPO, KL penalty": ppo_like("", PPO, clip=None, penalty=Adaptive()),
    "MDPO": ppo_like("mdpo", MDPO),
    "PPG": of("ppg", PPG, **LONG),
    "ES": search("es", ES),
    "ARS": search("ars", ARS),
}

PUBLISHED = {
    "rl-zoo, A2C": {"CartPole-v1": "500, 500k", "Acrobot-v1": "-83", "MountainCar-v0": "-111", "Pendulum-v1": "-163, 1M", "LunarLander-v3": "156, 200k", "Hopper-v5": "733", "HalfCheetah-v5": "3,041"},
    "rl-zoo, TRPO": {"CartPole-v1": "500, 100k", "Acrobot-v1": "-83", "MountainCar-v0": "-107", "Pendulum-v1": "-175, 100k", "LunarLander-v3": "133, 200k", "LunarLanderContinuous-v3": "262, 200k", "Hopper-v5": "3,618", "HalfCheetah-v5": "1,785"},
    "rl-zoo, PPO": {"CartPole-v1": "500, 100k", "Acrobot-v1": "-73", "MountainCar-v0": "-110", "Pendulum-v1": "-172, 100k", "LunarLander-v3": "242, 1M", "LunarLanderContinuous-v3": "271, 1M", "Hopper-v5": "2,410", "HalfCheetah-v5": "5,819"},
}  # fmt: skip
"""One run each, after other numbers of steps where these are named."""
