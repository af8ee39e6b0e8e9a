"""The agent that a lecture prints and trains, as near as its slides tell."""

from yozh.agents import DQN, Multiplicative
from yozh.agents.targets import Hard
from yozh.agents.values import Expected
from yozh.networks import MLP
from yozh.presets.preset import Preset

PRESETS = {
    "LunarLander-v3": Preset(
        DQN(learning_rate=1e-3, gamma=0.99, epsilon=Multiplicative(1.0, 0.996, 0.01), target=Hard(1), max_gradient_norm=float("inf"),
            torso=MLP((150, 120), "relu", "uniform"), values=Expected(huber=False), batch=64, capacity=1_000_000, warm_up=64,
            update_every=1, streams=1),
        steps=400_000,
        reached="94, 257, 210, 132, 219 on seeds 400-404",
        source="the slides' program: an update a step once there is a batch, no target network; episodes end after the environment's own 1,000 steps, before the slides' 3,000",
    ),
}  # fmt: skip
