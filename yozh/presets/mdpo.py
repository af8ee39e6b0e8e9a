from yozh.agents import MDPO, Linear
from yozh.agents.estimators import GAE
from yozh.presets.preset import Preset

PRESETS = {
    "CartPole-v1": Preset(
        MDPO(learning_rate=Linear(1e-3, 0.0), gamma=0.98, estimator=GAE(0.8), epochs=20, minibatches=1, streams=8, length=32),
        steps=100_000,
        reached="500, 500, 500, 500, 500 on seeds 500-504",
    ),
}  # fmt: skip
