"""ale-py's native vector of an Atari game."""

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv, VectorObservationWrapper
from jaxtyping import PyTree

from yozh.core import YozhError
from yozh.environments import atari
from yozh.environments.gymnasium import GymnasiumHost


class ALE(GymnasiumHost):
    """`n` streams of an `ALE/...` id, with `atari.Options`.

    A lost life is an episode of its own by `life_episodes`: the game is not begun anew after it, so that the step which opens the next one
    is played. It presses fire or does nothing, whatever the action, and what it earns is lost.
    """

    def __init__(self, id: str, n: int, **options: Any):
        asked = atari.arguments(id, "gymnasium", options)
        threads = min(max(n // 4, 1), os.cpu_count() or 1)
        how = {"vectorization_mode": "vector_entry_point", "num_threads": threads} | asked
        try:
            vector: Any = gymnasium.make_vec(id, n, **how)
        except (TypeError, ValueError, RuntimeError, gymnasium.error.Error) as error:
            raise YozhError(f"ale-py cannot make {id} with {dict(options)}: {error}") from None
        actions = [action.name for action in vector.unwrapped.ale.get_action_set()]
        self._begins = actions.index("FIRE") if asked["use_fire_reset"] and "FIRE" in actions else 0
        self._lives, self._longest = asked["life_loss_info"], options.get("max_steps", atari.Options.max_steps)
        super().__init__(vector if asked["grayscale"] else _Channels(vector), n)

    def _limit(self) -> int:
        return self._longest

    def send(self, action: PyTree) -> None:
        super().send(np.where(self._boundary.last, self._begins, action) if self._lives else action)


class _Channels(VectorObservationWrapper):
    """Colours as channels, `[n, stack · 3, size, size]`, as EnvPool has them."""

    def __init__(self, env: VectorEnv):
        super().__init__(env)
        stack, height, width, colours = env.observation_space.shape[1:]  # pyright: ignore[reportOptionalSubscript]
        self._shape = (stack * colours, height, width)
        self.single_observation_space = Box(0, 255, self._shape, np.uint8)

    def observations(self, observations: Any) -> np.ndarray:
        return np.moveaxis(observations, -1, 2).reshape(len(observations), *self._shape)
