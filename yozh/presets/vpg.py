from yozh.agents import VPG
from yozh.agents.estimators import GAE
from yozh.presets.preset import Preset

PRESETS = {
    "CartPole-v1": Preset(VPG(), steps=300_000, reached="494, 500, 500, 500, 500 on seeds 400-404"),
    "Acrobot-v1": Preset(
        VPG(estimator=GAE(0.95), normalise_observations=True, scale_rewards=True),
        steps=500_000,
        reached="-92, -91, -90, -86, -78 on seeds 400-404",
    ),
}
