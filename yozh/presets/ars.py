from yozh.agents import ARS
from yozh.presets.preset import Preset

PRESETS = {
    "CartPole-v1": Preset(ARS(), steps=300_000, reached="500, 500, 500, 500, 500 on seeds 400-404 in 1 s each"),
    "Acrobot-v1": Preset(ARS(), steps=2_000_000, reached="-80, -83, -83, -81, -91 on seeds 400-404"),
    "MountainCar-v0": Preset(
        ARS(horizon=200), steps=1_000_000, reached="-129, -114, -121, -130, -120 on seeds 400-404"
    ),
}
