from yozh.agents import ES
from yozh.presets.preset import Preset

PRESETS = {
    "CartPole-v1": Preset(ES(), steps=1_000_000, reached="500, 500, 500, 500, 500 on seeds 400-404 in 1 s each"),
    "Acrobot-v1": Preset(
        ES(normalise_observations=True), steps=2_000_000, reached="-85, -90, -81, -86, -83 on seeds 400-404"
    ),
}
