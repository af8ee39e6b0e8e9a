"""Algorithms, one a file."""

from yozh.agents.a2c import A2C
from yozh.agents.base import GradientAgent
from yozh.agents.dqn import DQN
from yozh.agents.es import ARS, ES, FiniteDifferences
from yozh.agents.ppo import PPO
from yozh.agents.pqn import PQN
from yozh.agents.reinforce import REINFORCE, VPG
from yozh.agents.schedules import Constant, Linear, Multiplicative
from yozh.core import Agent

__all__ = [
    "A2C", "ARS", "DQN", "ES", "PPO", "PQN", "REINFORCE", "VPG", "Constant", "FiniteDifferences", "GradientAgent", "Linear",
    "Multiplicative", "names",
]  # fmt: skip


def names() -> dict[str, type[Agent]]:
    """The names that the command line knows agents by."""
    return {
        "a2c": A2C,
        "ars": ARS,
        "dqn": DQN,
        "es": ES,
        "finite-differences": FiniteDifferences,
        "ppo": PPO,
        "pqn": PQN,
        "reinforce": REINFORCE,
        "vpg": VPG,
    }
