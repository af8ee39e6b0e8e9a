from yozh.agents import QAC
from yozh.presets.preset import Preset

PRESETS = {"CartPole-v1": Preset(QAC(), steps=500_000, reached="500, 500, 500, 500, 500 on seeds 400-404")}
