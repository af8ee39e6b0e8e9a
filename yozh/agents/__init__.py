"""Algorithms, one a file."""

from yozh.agents.a2c import A2C
from yozh.agents.base import GradientAgent
from yozh.agents.dqn import DQN
from yozh.agents.es import ARS, ES, FiniteDifferences
from yozh.agents.mdpo import MDPO
from yozh.agents.ppg import PPG
from yozh.agents.ppo import PPO
from yozh.agents.pqn import PQN
from yozh.agents.reinforce import REINFORCE, VPG
from yozh.agents.schedules import Constant, Linear, Multiplicative
from yozh.agents.trpo import NPG, TRPO
from yozh.core import Agent

__all__ = [
    "A2C", "ARS", "DQN", "ES", "MDPO", "NPG", "PPG", "PPO", "PQN", "REINFORCE", "TRPO", "VPG", "Constant", "FiniteDifferences",
    "GradientAgent", "Linear", "Multiplicative", "names",
]  # fmt: skip


def names() -> dict[str, type[Agent]]:
    """The names that the command line knows agents by."""
    return {
        "a2c": A2C,
        "ars": ARS,
        "dqn": DQN,
        "es": ES,
        "finite-differences": FiniteDifferences,
        "mdpo": MDPO,
        "npg": NPG,
        "ppg": PPG,
        "ppo": PPO,
        "pqn": PQN,
        "reinforce": REINFORCE,
        "trpo": TRPO,
        "vpg": VPG,
    }
