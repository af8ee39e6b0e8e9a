"""Networks: torsos read observations, cores remember, heads answer; `Network` joins the three."""

from yozh.networks.action_value import ActionValue
from yozh.networks.cores import GRU, LSTM
from yozh.networks.network import ActorCritic, Network, PolicyNetwork, QNetwork, forward, forward_each, unroll
from yozh.networks.torsos import CNN, MLP, Auto, Blueprint, Ready, Torso

__all__ = [
    "CNN", "GRU", "LSTM", "MLP", "ActionValue", "ActorCritic", "Auto", "Blueprint", "Network", "PolicyNetwork", "QNetwork",
    "Ready", "Torso", "forward", "forward_each", "unroll",
]  # fmt: skip
