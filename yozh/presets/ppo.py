from yozh.agents import PPO, Linear
from yozh.agents.estimators import GAE
from yozh.networks import MLP
from yozh.presets.preset import Preset

PRESETS = {
    "CartPole-v1": Preset(
        PPO(learning_rate=Linear(1e-3, 0.0), gamma=0.98, estimator=GAE(0.8), clip=Linear(0.2, 0.0), epochs=20, minibatches=1,
            streams=8, length=32),
        steps=100_000,
        reached="500, 500, 500, 500, 500 on seeds 300-304 in 1 s each",
        source="rl-zoo3's settings",
    ),
    "Acrobot-v1": Preset(
        PPO(estimator=GAE(0.94), epochs=4, minibatches=32, streams=16, length=128, normalise_observations=True,
            scale_rewards=True, learning_rate=Linear(1e-3, 0.0)),
        steps=300_000,
        reached="-82, -86, -81, -83, -82 on seeds 300-304 in 1 s each",
        source="rl-zoo3's settings, shorter unrolls, learning rate 1e-3 annealed",
    ),
    "LunarLander-v3": Preset(
        PPO(learning_rate=Linear(1e-3, 0.0), gamma=0.999, estimator=GAE(0.98), epochs=6, minibatches=32, streams=16, length=256,
            entropy_coefficient=0.01, normalise_observations=True),
        steps=1_000_000,
        reached="280, 283, 272, 277, 280 on seeds 200-204 in 26 s each",
        source="rl-zoo3's gamma, lambda and entropy; shorter unrolls, observations normalised, learning rate annealed",
    ),
    "Pendulum-v1": Preset(
        PPO(learning_rate=Linear(1e-3, 0.0), gamma=0.95, estimator=GAE(0.9), epochs=10, minibatches=8, streams=8, length=64,
            scale_rewards=True, normalise_advantage=False, max_gradient_norm=10.0),
        steps=100_000,
        reached="-165, -189, -151, -146, -184 on seeds 300-304 in 1 s each",
    ),
    "Catch": Preset(
        PPO(learning_rate=Linear(2e-3, 0.0), epochs=4, minibatches=4, streams=16, length=32),
        steps=90_000,
        reached="1, 1, 1, 1, 1 in 0.5 s each",
    ),
    "Breakout-MinAtar": Preset(
        PPO(learning_rate=Linear(5e-3, 0.0), epochs=4, minibatches=8, streams=64, length=128, entropy_coefficient=0.01,
            clip_value=True, torso=MLP((64, 64), "relu")),
        steps=10_000_000,
        reached="41, 70, 24.5, 24.5, 41 on seeds 400-404, 57, 91, 44 on 0-2 in 82 s each",
        source="PureJaxRL's settings for MinAtar",
    ),
}  # fmt: skip
