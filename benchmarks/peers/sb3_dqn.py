"""Stable-Baselines3's DQN on LunarLander-v3."""

import json
import sys
import time

import torch
from stable_baselines3 import DQN

steps, settings = int(sys.argv[1]), json.loads(sys.argv[2])
torch.set_num_threads(settings.pop("threads"))
model = DQN("MlpPolicy", "LunarLander-v3", seed=0, device="cpu", **settings)
began = time.perf_counter()
model.learn(steps)
seconds = time.perf_counter() - began
print(
    json.dumps({"steps": model.num_timesteps, "seconds": seconds, "compile_seconds": 0.0, "updates": model._n_updates})
)
