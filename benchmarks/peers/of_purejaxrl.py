"""PureJaxRL's `ppo.py` or `dqn.py`, from the checkout that the environment variable PUREJAXRL names."""

import importlib
import json
import os
import sys
import time
from unittest.mock import MagicMock

import jax

steps, settings = int(sys.argv[1]), json.loads(sys.argv[2])
# Its wrappers import two libraries of environments that are not used here.
for name in ("brax", "brax.envs", "brax.envs.wrappers", "brax.envs.wrappers.training", "navix", "wandb"):
    sys.modules[name] = MagicMock()
jax.tree_map = jax.tree.map  # as it was called when these scripts were written
sys.path.insert(0, os.path.join(os.environ["PUREJAXRL"], "purejaxrl"))
make_train = importlib.import_module(settings.pop("SCRIPT", "ppo")).make_train

began = time.perf_counter()
settings["TOTAL_TIMESTEPS"] = steps
train = jax.jit(make_train(settings)).lower(jax.random.PRNGKey(0)).compile()
compiled = time.perf_counter() - began
began = time.perf_counter()
out = jax.block_until_ready(train(jax.random.PRNGKey(0)))
seconds = time.perf_counter() - began
told = {"steps": steps, "seconds": seconds, "compile_seconds": compiled}
if "returned_episode" in out["metrics"]:
    info, done = out["metrics"], out["metrics"]["returned_episode"]
    told |= {"steps": done.size, "return": float((info["returned_episode_returns"] * done).sum() / done.sum())}
print(json.dumps(told))
