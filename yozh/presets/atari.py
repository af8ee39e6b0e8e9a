"""Value-based agents for any Atari game, with the settings that were published for them."""

from typing import Any

from yozh.agents import DQN, Linear
from yozh.agents.optimisers import Adam, RMSProp
from yozh.agents.sampling import Prioritised
from yozh.agents.scales import Clipped
from yozh.agents.targets import Hard
from yozh.agents.values import C51, ImplicitQuantile, QuantileRegression
from yozh.networks.noisy import Factorised
from yozh.presets.preset import Preset

STEPS = 50_000_000
"""200 million frames."""

ANY = "Atari"
"""How presets for any game are listed."""


def zoo(**changes: Any) -> DQN:
    """What dqn_zoo's agents share: rewards clipped to ±1, a million steps of replay, an update every 16 frames."""
    settings = dict(
        epsilon=Linear(1.0, 0.01, 0.02), reward=Clipped(1.0), target=Hard(2500), batch=32, capacity=1_000_000, warm_up=50_000,
        update_every=4,
    )  # fmt: skip
    return DQN(**(settings | changes))


def rainbow(**changes: Any) -> DQN:
    """Rainbow's settings for Atari (Hessel et al. 2018, table 4), with any of `DQN`'s changed; not tuned here.

    Double, dueling, prioritised, noisy, three steps, C51. Elsewhere the support `values=C51(low, high)`, the
    rewards' clipping, the learning rate and the sizes want changing.
    """
    settings = dict(
        learning_rate=6.25e-5, descent=Adam(1.5e-4), double=True, dueling=True, n_step=3, values=C51(-10.0, 10.0, 51),
        replay=Prioritised(0.5, Linear(0.4, 1.0)), noisy=Factorised(0.5), reward=Clipped(1.0), target=Hard(2000), batch=32,
        capacity=1_000_000, warm_up=20_000, update_every=4,
    )  # fmt: skip
    return DQN(**(settings | changes))


def _preset(agent: DQN, source: str) -> Preset:
    return Preset(agent, STEPS, reached="not measured", source=source, env_options={"life_episodes": True})


PRESETS = {
    "dqn": _preset(
        zoo(learning_rate=2.5e-4, descent=RMSProp(), epsilon=Linear(1.0, 0.1, 0.02)),
        "dqn_zoo",
    ),
    "double-dqn": _preset(
        zoo(learning_rate=2.5e-4, descent=RMSProp(), double=True, target=Hard(7500)),
        "dqn_zoo, with a bias for each action",
    ),
    "c51": _preset(
        zoo(learning_rate=2.5e-4, descent=Adam(0.01 / 32), values=C51(-10.0, 10.0, 51)),
        "dqn_zoo",
    ),
    "qr-dqn": _preset(
        zoo(learning_rate=5e-5, descent=Adam(0.01 / 32), values=QuantileRegression(201)),
        "dqn_zoo",
    ),
    "iqn": _preset(
        zoo(learning_rate=5e-5, descent=Adam(0.01 / 32), values=ImplicitQuantile(64, 64), warm_up=20_000),
        "dqn_zoo, gradients clipped as the others' are",
    ),
    "rainbow": _preset(rainbow(), "Hessel et al. 2018, table 4"),
}
"""By name; each plays with eight streams, and lives are episodes."""
