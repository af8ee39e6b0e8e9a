from yozh.agents import A2C
from yozh.presets.preset import Preset

PRESETS = {"CartPole-v1": Preset(A2C(), steps=500_000, reached="500, 500, 500, 500, 500 on seeds 300-304 in 1 s each")}
