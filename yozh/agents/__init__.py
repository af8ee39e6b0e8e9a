"""Algorithms, one a file."""

from yozh.agents.a2c import A2C
from yozh.agents.base import GradientAgent
from yozh.agents.dqn import DQN
from yozh.agents.ppo import PPO
from yozh.agents.pqn import PQN
from yozh.agents.schedules import Constant, Linear, Multiplicative
from yozh.core import Agent

__all__ = ["A2C", "DQN", "PPO", "PQN", "Constant", "GradientAgent", "Linear", "Multiplicative", "names"]


def names() -> dict[str, type[Agent]]:
    """The names that the command line knows agents by."""
    return {"a2c": A2C, "dqn": DQN, "ppo": PPO, "pqn": PQN}
