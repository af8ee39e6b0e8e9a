"""DQN of Stable-Baselines3 with rl-zoo3's settings on LunarLander-v3, until ten episodes reach a mean return."""

import json
import sys

import gymnasium as gym
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import EvalCallback, StopTrainingOnRewardThreshold

steps, asked = int(sys.argv[1]), json.loads(sys.argv[2])
torch.set_num_threads(1)
model = DQN(
    "MlpPolicy",
    "LunarLander-v3",
    learning_rate=6.3e-4,
    batch_size=128,
    buffer_size=50_000,
    learning_starts=0,
    train_freq=4,
    gradient_steps=-1,
    target_update_interval=250,
    exploration_fraction=0.12 * 100_000 / steps,  # the zoo's, of 100,000 steps
    exploration_final_eps=0.1,
    gamma=0.99,
    policy_kwargs=dict(net_arch=[256, 256]),
    seed=asked["seed"],
    device="cpu",
)
look = EvalCallback(
    gym.make("LunarLander-v3"),
    callback_on_new_best=StopTrainingOnRewardThreshold(asked["return"], verbose=0),
    n_eval_episodes=10,
    eval_freq=asked["every"],
    verbose=0,
)
model.learn(steps, callback=look)
print(json.dumps({"steps": model.num_timesteps, "return": float(look.last_mean_reward)}))
