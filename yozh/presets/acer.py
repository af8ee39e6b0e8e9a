from yozh.agents import ACER, Linear
from yozh.agents.scales import Scaled
from yozh.presets.preset import Preset

PRESETS = {
    "CartPole-v1": Preset(
        ACER(learning_rate=Linear(1.5e-3, 0.0), reward=Scaled(0.1), batch=16, capacity=20_000, length=16, updates=2,
             entropy_coefficient=0.003, max_gradient_norm=1.0),
        steps=200_000,
        reached="500, 500, 500, 500, 500 on seeds 400-404",
    ),
}  # fmt: skip
