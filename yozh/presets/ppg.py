from yozh.agents import PPG
from yozh.agents.estimators import GAE
from yozh.presets.preset import Preset

PRESETS = {
    "CartPole-v1": Preset(
        PPG(learning_rate=1e-3, gamma=0.98, estimator=GAE(0.9), epochs=4, minibatches=4, streams=8, length=128,
            policy_phases=8, entropy_coefficient=0.0),
        steps=100_000,
        reached="not measured; untuned",
    ),
}  # fmt: skip
