from yozh.agents import TRPO
from yozh.agents.estimators import GAE
from yozh.presets.preset import Preset

PRESETS = {
    "CartPole-v1": Preset(
        TRPO(damping=0.01, estimator=GAE(0.98), epochs=20, minibatches=8, streams=8, length=128),
        steps=100_000,
        reached="500, 500, 500, 500, 500 on seeds 400-404",
        source="rl-zoo3's settings, 8 streams of 128 steps",
    ),
    "Pendulum-v1": Preset(
        TRPO(gamma=0.9, epochs=15, streams=8, length=256),
        steps=100_000,
        reached="-175, -180, -198, -170, -158 on seeds 400-404",
        source="rl-zoo3's settings, 8 streams of 256 steps, noise that does not depend on the state",
    ),
}  # fmt: skip
