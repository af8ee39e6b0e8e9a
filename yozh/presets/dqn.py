from yozh.agents import DQN, Linear, Multiplicative
from yozh.agents.targets import Hard
from yozh.networks import Auto
from yozh.presets.preset import Preset


def _net(*widths: int) -> Auto:
    return Auto(widths, "relu", "uniform")


PRESETS = {
    "CartPole-v1": Preset(
        DQN(learning_rate=1e-3, epsilon=Linear(1.0, 0.04, 0.16), torso=_net(128, 128), target=Hard(250), batch=64,
            capacity=50_000, warm_up=1000, update_every=2, double=True),
        steps=50_000,
        reached="",
    ),
    "LunarLander-v3": Preset(
        DQN(learning_rate=5e-4, epsilon=Linear(1.0, 0.02, 0.25), torso=_net(128, 128), target=Hard(500), batch=64,
            capacity=200_000, warm_up=2000, update_every=4, double=True, n_step=3),
        steps=300_000,
        reached="",
    ),
}  # fmt: skip
