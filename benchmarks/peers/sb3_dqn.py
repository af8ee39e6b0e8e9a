"""DQN of Stable-Baselines3 or QR-DQN of sb3-contrib."""

import importlib
import json
import sys
import time

import torch

steps, settings = int(sys.argv[1]), json.loads(sys.argv[2])
torch.set_num_threads(settings.pop("threads"))
library, algorithm = settings.pop("library", "stable_baselines3"), settings.pop("algorithm", "DQN")
env = settings.pop("env", "LunarLander-v3")
model = getattr(importlib.import_module(library), algorithm)("MlpPolicy", env, seed=0, device="cpu", **settings)
began = time.perf_counter()
model.learn(steps)
seconds = time.perf_counter() - began
print(
    json.dumps({"steps": model.num_timesteps, "seconds": seconds, "compile_seconds": 0.0, "updates": model._n_updates})
)
