from yozh.agents import PQN, Linear
from yozh.agents.scales import Scaled
from yozh.networks import CNN, Auto
from yozh.presets.preset import Preset

PRESETS = {
    "CartPole-v1": Preset(
        PQN(learning_rate=Linear(1e-3, 0.0), lam=0.95, epsilon=Linear(1.0, 0.2, 0.2), torso=Auto((64, 64), "relu", norm=True),
            reward=Scaled(0.1), epochs=4, minibatches=16, streams=32, length=64),
        steps=500_000,
        reached="500, 500, 500, 500, 500 on seeds 300-304 in 2 s each",
        source="the authors' settings (purejaxql), a smaller network and a learning rate ten times as large",
    ),
    "Breakout-MinAtar": Preset(
        PQN(torso=CNN.minatar(norm=True), minibatches=32, streams=128),
        steps=10_000_000,
        reached="25 on seed 400 after 2M steps in 3 min; untuned, not run to its end",
        source="the authors' settings for MinAtar (purejaxql); their layer norm is over channels alone",
    ),
}  # fmt: skip
