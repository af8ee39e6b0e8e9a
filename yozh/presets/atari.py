from typing import Any

from yozh.agents import DQN, Linear
from yozh.agents.sampling import Prioritised
from yozh.agents.scales import Clipped
from yozh.agents.targets import Hard
from yozh.agents.values import C51
from yozh.networks.noisy import Factorised


def rainbow(**changes: Any) -> DQN:
    """Rainbow's settings for Atari (Hessel et al. 2018, table 4), with any of `DQN`'s changed; not tuned here.

    Double, dueling, prioritised, noisy, three steps, C51. Elsewhere the support `values=C51(low, high)`, the
    rewards' clipping, the learning rate and the sizes want changing.
    """
    settings = dict(
        learning_rate=6.25e-5, adam_epsilon=1.5e-4, double=True, dueling=True, n_step=3, values=C51(-10.0, 10.0, 51),
        replay=Prioritised(0.5, Linear(0.4, 1.0)), noisy=Factorised(0.5), reward=Clipped(1.0), target=Hard(2000), batch=32,
        capacity=1_000_000, warm_up=20_000, update_every=4,
    )  # fmt: skip
    return DQN(**(settings | changes))
