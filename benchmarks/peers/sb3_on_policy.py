"""PPO or A2C of Stable-Baselines3, PPO of SBX, its JAX twin, or TRPO of sb3-contrib, on any Gymnasium environment."""

import importlib
import json
import sys
import time

import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

steps, settings = int(sys.argv[1]), json.loads(sys.argv[2])
torch.set_num_threads(settings.pop("threads"))
library, env, n_envs = (settings.pop(name) for name in ("library", "env", "n_envs"))
algorithm, normalise = settings.pop("algorithm", "PPO"), settings.pop("normalise", False)
envs = make_vec_env(env, n_envs, seed=0)
envs = VecNormalize(envs) if normalise else envs
model = getattr(importlib.import_module(library), algorithm)("MlpPolicy", envs, seed=0, device="cpu", **settings)
model.learn(n_envs * settings["n_steps"])  # compiles, where there is something to compile
began = time.perf_counter()
before = model.num_timesteps
model.learn(steps, reset_num_timesteps=False)
seconds = time.perf_counter() - began
print(
    json.dumps(
        {"steps": model.num_timesteps - before, "seconds": seconds, "compile_seconds": 0.0, "updates": model._n_updates}
    )
)
