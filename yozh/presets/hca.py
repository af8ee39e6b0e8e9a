from yozh.agents import HCA, Linear
from yozh.agents.scales import Scaled
from yozh.presets.preset import Preset

PRESETS = {
    "CartPole-v1": Preset(
        HCA(learning_rate=Linear(3e-3, 0.0), gamma=0.9, entropy_coefficient=0.3, reward=Scaled(0.1)),
        steps=500_000,
        reached="500, 499, 500, 500, 500 on seeds 400-404",
    ),
}  # fmt: skip
