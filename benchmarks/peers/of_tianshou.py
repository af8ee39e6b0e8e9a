"""DQN, C51 or Rainbow of Tianshou, by its collector and its update, without its trainer's evaluation and logging."""

import json
import sys
import time
from functools import partial

import gymnasium as gym
import torch
from tianshou.algorithm import C51, DQN, RainbowDQN
from tianshou.algorithm.modelfree.c51 import C51Policy
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, PrioritizedVectorReplayBuffer, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.net.discrete import NoisyLinear
from tianshou.utils.torch_utils import policy_within_training_step

steps, settings = int(sys.argv[1]), json.loads(sys.argv[2])
torch.set_num_threads(1)
kind, streams, batch = settings["algorithm"], settings["streams"], settings["batch"]
envs = DummyVectorEnv([lambda: gym.make(settings["env"]) for _ in range(streams)])
space, actions = envs.observation_space[0], envs.action_space[0]
rainbow, atoms = kind == "RainbowDQN", {} if kind == "DQN" else {"num_atoms": settings["atoms"]}
layer = partial(NoisyLinear, noisy_std=0.5) if rainbow else torch.nn.Linear
net = Net(
    state_shape=space.shape,
    action_shape=actions.n,
    hidden_sizes=settings["widths"],
    softmax=bool(atoms),
    dueling_param=({"linear_layer": layer}, {"linear_layer": layer}) if rainbow else None,
    linear_layer=layer,
    **atoms,
)
common = dict(model=net, action_space=actions, observation_space=space, eps_training=0.0 if rainbow else 0.1)
if atoms:
    policy = C51Policy(v_min=settings["low"], v_max=settings["high"], **atoms, **common)
else:
    policy = DiscreteQLearningPolicy(**common)
algorithm = {"DQN": DQN, "C51": C51, "RainbowDQN": RainbowDQN}[kind](
    policy=policy,
    optim=AdamOptimizerFactory(lr=settings["rate"]),
    gamma=0.99,
    n_step_return_horizon=settings["n"],
    target_update_freq=500,
)
if rainbow:
    buffer = PrioritizedVectorReplayBuffer(settings["capacity"], streams, alpha=0.6, beta=0.4, weight_norm=True)
else:
    buffer = VectorReplayBuffer(settings["capacity"], streams)
collector = Collector(algorithm, envs, buffer)
collector.reset()
collector.collect(n_step=settings["warm_up"], random=True)
began = time.perf_counter()
with policy_within_training_step(policy):
    for _ in range(steps // settings["update_every"]):
        collector.collect(n_step=settings["update_every"])
        algorithm.update(buffer=buffer, sample_size=batch)
seconds = time.perf_counter() - began
print(json.dumps({"steps": steps, "seconds": seconds, "compile_seconds": 0.0}))
