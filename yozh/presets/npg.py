from yozh.agents import NPG
from yozh.agents.estimators import GAE
from yozh.presets.preset import Preset

PRESETS = {
    "CartPole-v1": Preset(
        NPG(damping=0.01, estimator=GAE(0.98), epochs=20, minibatches=8, streams=8, length=128),
        steps=100_000,
        reached="500, 500, 500, 500, 500 on seeds 400-404",
        source="those of TRPO",
    ),
}  # fmt: skip
