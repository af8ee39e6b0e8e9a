"""Networks: torsos read observations, cores remember, heads answer; `Network` joins the three."""

from yozh.networks.cores import GRU, LSTM
from yozh.networks.network import ActorCritic, Network, QNetwork, forward, unroll
from yozh.networks.torsos import CNN, MLP, Auto, Blueprint, Ready, Torso

__all__ = [
    "CNN", "GRU", "LSTM", "MLP", "ActorCritic", "Auto", "Blueprint", "Network", "QNetwork", "Ready", "Torso", "forward", "unroll",
]  # fmt: skip
