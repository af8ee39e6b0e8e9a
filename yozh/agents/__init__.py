"""Algorithms, one a file."""

from yozh.agents.a2c import A2C
from yozh.agents.acer import ACER
from yozh.agents.base import GradientAgent
from yozh.agents.dqn import DQN
from yozh.agents.es import ARS, ES, FiniteDifferences
from yozh.agents.hca import HCA
from yozh.agents.mdpo import MDPO
from yozh.agents.off_policy_mdpo import OffPolicyMDPO
from yozh.agents.ppg import PPG
from yozh.agents.ppo import PPO
from yozh.agents.pqn import PQN
from yozh.agents.qac import QAC
from yozh.agents.qprop import QProp
from yozh.agents.reinforce import REINFORCE, VPG
from yozh.agents.schedules import Constant, Linear, Multiplicative
from yozh.agents.trpo import NPG, TRPO
from yozh.core import Agent

__all__ = [
    "A2C", "ACER", "ARS", "DQN", "ES", "HCA", "MDPO", "NPG", "PPG", "PPO", "PQN", "QAC", "REINFORCE", "TRPO", "VPG", "Constant",
    "FiniteDifferences", "GradientAgent", "Linear", "Multiplicative", "OffPolicyMDPO", "QProp", "names",
]  # fmt: skip


def names() -> dict[str, type[Agent]]:
    """The names that the command line knows agents by."""
    return {
        kind.__name__.lower(): kind
        for kind in (
            A2C, ACER, ARS, DQN, ES, FiniteDifferences, HCA, MDPO, NPG, OffPolicyMDPO, PPG, PPO, PQN, QAC, QProp, REINFORCE, TRPO, VPG,
        )
    }  # fmt: skip
