"""PureJaxRL's `ppo.py`, from the checkout that the environment variable PUREJAXRL names."""

import json
import os
import sys
import time
from unittest.mock import MagicMock

import jax

steps, settings = int(sys.argv[1]), json.loads(sys.argv[2])
# Its wrappers import two libraries of environments that are not used here.
for name in ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix"):
    sys.modules[name] = MagicMock()
sys.path.insert(0, os.path.join(os.environ["PUREJAXRL"], "purejaxrl"))
from ppo import make_train  # noqa: E402

began = time.perf_counter()
settings["TOTAL_TIMESTEPS"] = steps
train = jax.jit(make_train(settings)).lower(jax.random.PRNGKey(0)).compile()
compiled = time.perf_counter() - began
began = time.perf_counter()
out = jax.block_until_ready(train(jax.random.PRNGKey(0)))
seconds = time.perf_counter() - began
info = out["metrics"]
done = info["returned_episode"]
print(json.dumps({"steps": done.size, "seconds": seconds, "compile_seconds": compiled,
                  "return": float((info["returned_episode_returns"] * done).sum() / done.sum())}))  # fmt: skip
