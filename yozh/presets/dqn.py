from yozh.agents import DQN, Linear
from yozh.agents.targets import Hard, Soft
from yozh.networks import CNN, Auto
from yozh.presets.preset import Preset


def _net(*widths: int) -> Auto:
    return Auto(widths, "relu", "uniform")


PRESETS = {
    "CartPole-v1": Preset(
        DQN(learning_rate=Linear(1e-3, 0.0), epsilon=Linear(1.0, 0.04, 0.16), torso=_net(256, 256), target=Hard(128), batch=64,
            capacity=100_000, warm_up=1000, update_every=2, length=256, streams=1, double=True, n_step=3, max_gradient_norm=1.0),
        steps=50_000,
        reached="500, 500, 500, 500, 500 on seeds 500-504 in 7 s each",
        source="rl-zoo3's bouts of 128 updates after 256 steps; double, a smaller learning rate that is annealed",
    ),
    "Acrobot-v1": Preset(
        DQN(learning_rate=Linear(1e-3, 0.0), epsilon=Linear(1.0, 0.05, 0.12), torso=_net(128, 128), target=Soft(0.01), batch=64,
            capacity=100_000, warm_up=1000, update_every=4, double=True, n_step=5),
        steps=100_000,
        reached="-78, -86, -80, -79, -81 on seeds 300-304 in 3 s each",
    ),
    "LunarLander-v3": Preset(
        DQN(learning_rate=Linear(1e-3, 0.0), epsilon=Linear(1.0, 0.02, 0.75), torso=_net(128, 128), target=Soft(0.005), batch=64,
            capacity=400_000, warm_up=2000, update_every=2, double=True, dueling=True, n_step=3, gamma=0.995,
            normalise_observations=True),
        steps=400_000,
        reached="235, 259, 177, 229, 249 on seeds 300-304 in 27 s each",
    ),
    "Catch": Preset(
        DQN(learning_rate=Linear(1e-3, 0.0), epsilon=Linear(1.0, 0.05, 0.3), torso=_net(64, 64), target=Soft(0.01), batch=32,
            capacity=50_000, warm_up=500, update_every=4, double=True),
        steps=90_000,
        reached="1, 1, 1, 1, 1 in 1 s each",
    ),
    "Breakout-MinAtar": Preset(
        DQN(learning_rate=Linear(5e-4, 0.0), epsilon=Linear(1.0, 0.05, 0.2), torso=CNN.minatar(init="uniform"), target=Soft(0.005),
            batch=64, capacity=200_000, warm_up=5000, update_every=8, double=True, n_step=3),
        steps=1_000_000,
        reached="22 on seed 400 in 4 min",
    ),
}  # fmt: skip
