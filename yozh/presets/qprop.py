from yozh.agents import Linear, QProp
from yozh.agents.estimators import GAE
from yozh.agents.scales import Scaled
from yozh.agents.targets import Soft
from yozh.presets.preset import Preset

PRESETS = {
    "Pendulum-v1": Preset(
        QProp(learning_rate=Linear(3e-3, 0.0), gamma=0.95, estimator=GAE(0.9), reward=Scaled(0.1), target=Soft(0.02), critic_steps=16,
              streams=4, length=16),
        steps=200_000,
        reached="-761, -595, -445, -317, -196 on seeds 400-404 in 4 s each; ppo reaches more in half the steps",
    ),
}  # fmt: skip
