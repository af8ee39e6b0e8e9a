"""Algorithms, one a file."""

from yozh.agents.a2c import A2C
from yozh.agents.acer import ACER
from yozh.agents.base import GradientAgent
from yozh.agents.dqn import DQN
from yozh.agents.hca import HCA
from yozh.agents.off_policy_mdpo import OffPolicyMDPO
from yozh.agents.ppo import PPO
from yozh.agents.pqn import PQN
from yozh.agents.qac import QAC
from yozh.agents.schedules import Constant, Linear, Multiplicative
from yozh.core import Agent

__all__ = [
    "A2C", "ACER", "DQN", "HCA", "PPO", "PQN", "QAC", "Constant", "GradientAgent", "Linear", "Multiplicative", "OffPolicyMDPO", "names",
]  # fmt: skip


def names() -> dict[str, type[Agent]]:
    """The names that the command line knows agents by."""
    return {
        "a2c": A2C, "acer": ACER, "dqn": DQN, "hca": HCA, "offpolicymdpo": OffPolicyMDPO, "ppo": PPO, "pqn": PQN, "qac": QAC,
    }  # fmt: skip
