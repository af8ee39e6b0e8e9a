from yozh.agents import NPG
from yozh.agents.estimators import GAE
from yozh.presets.preset import Preset

PRESETS = {
    "CartPole-v1": Preset(
        NPG(damping=0.01, estimator=GAE(0.98), epochs=20, minibatches=8, streams=8, length=128),
        steps=100_000,
        reached="",
        source="those of TRPO",
    ),
    "Pendulum-v1": Preset(
        NPG(gamma=0.9, epochs=15, streams=8, length=256),
        steps=100_000,
        reached="",
        source="those of TRPO",
    ),
}  # fmt: skip
