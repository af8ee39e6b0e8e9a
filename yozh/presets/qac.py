from yozh.agents import QAC
from yozh.presets.preset import Preset

PRESETS = {"CartPole-v1": Preset(QAC(), steps=500_000, reached="QACFIG")}
