from yozh.agents import PPO, Linear
from yozh.agents.estimators import GAE
from yozh.presets.preset import Preset

PRESETS = {
    "CartPole-v1": Preset(
        PPO(learning_rate=Linear(1e-3, 0.0), gamma=0.98, estimator=GAE(0.8), clip=Linear(0.2, 0.0), epochs=20, minibatches=1,
            streams=8, length=32),
        steps=100_000,
        reached="",
        source="rl-zoo3's settings",
    ),
}  # fmt: skip
