"""What is measured against what, and where the settings of the two sides differ."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    ours: str
    """Name of Yozh's side in `benchmarks.ours`."""
    peer: str
    """Script in `benchmarks/peers/`, run as `SCRIPT STEPS SETTINGS` by the peer's own Python."""
    venv: str
    settings: dict[str, Any]
    target: float
    """The ratio to be reached."""
    steps: int
    peer_steps: int
    differs: str
    """What cannot be made the same."""
    needs: str | None = field(default=None)
    """Environment variable that says where the peer's sources are, if it is not a package."""


RESETS = "The peer resets within the step that ends an episode; Yozh spends a step on it, which is not counted."
CLEANRL = (
    "CleanRL's defaults. Yozh runs 10 streams, CleanRL one; its gradients are not clipped, and DQN's loss is squared. "
)
PUREJAXRL = {
    "NUM_STEPS": 128, "UPDATE_EPOCHS": 4, "GAMMA": 0.99, "GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2, "ENT_COEF": 0.01,
    "VF_COEF": 0.5, "MAX_GRAD_NORM": 0.5, "ANNEAL_LR": True, "DEBUG": False,
}  # fmt: skip
ZOO_PPO = dict(threads=1, env="LunarLander-v3", n_envs=16, n_steps=1024, batch_size=64, n_epochs=4, gamma=0.999, gae_lambda=0.98,
               ent_coef=0.01, learning_rate=3e-4)  # fmt: skip
ZOO_TRPO = dict(
    threads=1, library="sb3_contrib", algorithm="TRPO", n_envs=2, gamma=0.99, learning_rate=1e-3, n_critic_updates=20
)
ZOO_TRPO_CARTPOLE = ZOO_TRPO | dict(env="CartPole-v1", n_steps=512, batch_size=512, gae_lambda=0.98, cg_damping=1e-3)
ZOO_TRPO_CHEETAH = ZOO_TRPO | dict(env="HalfCheetah-v5", normalise=True, n_steps=1024, batch_size=128, gae_lambda=0.95,
                                   cg_max_steps=25, cg_damping=0.1, target_kl=0.04)  # fmt: skip

TIANSHOU = dict(env="CartPole-v1", streams=8, batch=64, widths=[64, 64], rate=1e-3, n=1, capacity=20_000, warm_up=1000, update_every=8,
                atoms=51, low=0.0, high=100.0)  # fmt: skip

CASES = {
    "ppo-cartpole-rejax": Case(
        "ppo-cartpole-constant", "of_rejax", "jax",
        dict(env="CartPole-v1", num_envs=4, num_steps=128, num_epochs=4, num_minibatches=4, learning_rate=2.5e-4,
             gamma=0.99, gae_lambda=0.95, clip_eps=0.2, ent_coef=0.01, vf_coef=0.5, max_grad_norm=0.5,
             agent_kwargs=dict(activation="tanh", hidden_layer_sizes=[64, 64])),
        1.5, 500_000, 500_000,
        "rejax clips each element of the gradient, not its norm, has an optimiser each for actor and critic, and "
        "other initial weights; its evaluation is switched off. " + RESETS,
    ),
    "ppo-cartpole-purejaxrl": Case(
        "ppo-cartpole", "of_purejaxrl", "jax",
        PUREJAXRL | dict(ENV_NAME="CartPole-v1", NUM_ENVS=4, NUM_MINIBATCHES=4, LR=2.5e-4, ACTIVATION="tanh"),
        1.5, 500_000, 500_000, "PureJaxRL's printing is switched off. " + RESETS, "PUREJAXRL",
    ),
    "ppo-breakout": Case(
        "ppo-breakout", "of_purejaxrl", "jax",
        PUREJAXRL | dict(ENV_NAME="Breakout-MinAtar", NUM_ENVS=64, NUM_MINIBATCHES=8, LR=5e-3, ACTIVATION="relu"),
        1.5, 2_000_000, 1_000_000,
        "PureJaxRL's printing is switched off. With NPROC=2 in the environment both have two threads, else Yozh has one. " + RESETS,
        "PUREJAXRL",
    ),
    "dqn-lander": Case(
        "dqn-lander", "sb3_dqn", "sb3", dict(threads=1),
        20.0, 400_000, 20_000, "Yozh runs 16 streams, SB3 one. " + RESETS,
    ),
    "dqn-lander-zoo": Case(
        "dqn-lander-zoo", "sb3_dqn", "sb3",
        dict(threads=1, learning_rate=6.3e-4, batch_size=128, buffer_size=50_000, learning_starts=0, train_freq=4,
             gradient_steps=-1, target_update_interval=250, exploration_fraction=0.12, exploration_final_eps=0.1,
             policy_kwargs=dict(net_arch=[256, 256])),
        6.0, 60_000, 10_000, "Yozh runs 8 streams and learns 8 times after a step of all, SB3 4 times after 4. " + RESETS,
    ),
    "dqn-lander-hosted": Case(
        "dqn-lander-hosted", "sb3_dqn", "sb3", dict(threads=1),
        6.0, 100_000, 20_000, "Plain Gymnasium on both sides. Yozh runs 16 streams, SB3 one. " + RESETS,
    ),
    "ppo-lander-hosted-sb3": Case(
        "ppo-lander-hosted", "sb3_on_policy", "sb3", ZOO_PPO | dict(library="stable_baselines3"),
        4.0, 200_000, 60_000, "Plain Gymnasium on both sides. " + RESETS,
    ),
    "ppo-lander-hosted-sbx": Case(
        "ppo-lander-hosted", "sb3_on_policy", "sbx", ZOO_PPO | dict(library="sbx"),
        2.5, 200_000, 60_000, "Plain Gymnasium on both sides. " + RESETS,
    ),
    "ppo-cheetah-hosted": Case(
        "ppo-cheetah-hosted", "sb3_on_policy", "sb3",
        dict(threads=1, library="stable_baselines3", env="HalfCheetah-v5", n_envs=1, n_steps=2048, batch_size=64, n_epochs=10,
             learning_rate=3e-4),
        3.0, 80_000, 10_000, "SB3's defaults. Yozh runs 8 streams of 256 steps, SB3 one of 2,048. " + RESETS,
    ),
    "a2c-cartpole": Case(
        "a2c-cartpole", "sb3_on_policy", "sb3",
        dict(threads=1, library="stable_baselines3", algorithm="A2C", env="CartPole-v1", n_envs=8, n_steps=5),
        25.0, 2_000_000, 40_000, "SB3's defaults with the zoo's 8 streams. " + RESETS,
    ),
    "dqn-cartpole-purejaxrl": Case(
        "dqn-cartpole", "of_purejaxrl", "jax",
        dict(SCRIPT="dqn", ENV_NAME="CartPole-v1", NUM_ENVS=10, BUFFER_SIZE=10_000, BUFFER_BATCH_SIZE=128, EPSILON_START=1.0,
             EPSILON_FINISH=0.05, EPSILON_ANNEAL_TIME=250_000, TARGET_UPDATE_INTERVAL=500, LR=2.5e-4, LEARNING_STARTS=10_000,
             TRAINING_INTERVAL=10, LR_LINEAR_DECAY=False, GAMMA=0.99, TAU=1.0, WANDB_MODE="disabled"),
        1.5, 500_000, 500_000, "PureJaxRL's gradients are not clipped, and its loss is squared. " + RESETS, "PUREJAXRL",
    ),
    "dqn-cartpole-cleanrl": Case(
        "dqn-cartpole", "of_cleanrl", "cleanrl", dict(threads=1, script="dqn_jax"), 10.0, 500_000, 60_000, CLEANRL + RESETS, "CLEANRL",
    ),
    "dqn-cartpole-cleanrl-torch": Case(
        "dqn-cartpole", "of_cleanrl", "cleanrl", dict(threads=1, script="dqn"), 10.0, 500_000, 60_000, CLEANRL + RESETS, "CLEANRL",
    ),
    "c51-cartpole-cleanrl": Case(
        "c51-cartpole-101", "of_cleanrl", "cleanrl", dict(threads=1, script="c51_jax"), 10.0, 500_000, 60_000, CLEANRL + RESETS,
        "CLEANRL",
    ),
    "dqn-cartpole-rejax": Case(
        "dqn-cartpole-64", "of_rejax", "jax",
        dict(algorithm="DQN", env="CartPole-v1", num_envs=10, buffer_size=10_000, fill_buffer=10_000, batch_size=128, num_epochs=1,
             learning_rate=2.5e-4, gamma=0.99, target_update_freq=500, polyak=0.0, max_grad_norm=10.0, exploration_fraction=0.5,
             eps_start=1.0, eps_end=0.05, agent_kwargs=dict(activation="relu")),
        8.0, 500_000, 500_000, "Both double. rejax clips each element of the gradient, not its norm. " + RESETS,
    ),
    "qrdqn-lander": Case(
        "qrdqn-lander", "sb3_dqn", "contrib", dict(threads=1, library="sb3_contrib", algorithm="QRDQN"),
        10.0, 100_000, 10_000, "The defaults of sb3-contrib. Yozh runs 16 streams, the peer one. " + RESETS,
    ),
    "c51-cartpole": Case(
        "c51-cartpole", "of_tianshou", "tianshou", TIANSHOU | dict(algorithm="C51"),
        10.0, 200_000, 10_000, "The peer's trainer, with its evaluation and logging, is left out. " + RESETS,
    ),
    "rainbow-cartpole": Case(
        "rainbow-cartpole", "of_tianshou", "tianshou", TIANSHOU | dict(algorithm="RainbowDQN", n=3),
        10.0, 200_000, 10_000, "All layers noisy. The peer's trainer, with its evaluation and logging, is left out. " + RESETS,
    ),
    "trpo-cartpole": Case(
        "trpo-cartpole", "sb3_on_policy", "contrib", ZOO_TRPO_CARTPOLE, 8.0, 1_000_000, 20_000, "The zoo's settings. " + RESETS,
    ),
    "npg-cartpole": Case(
        "npg-cartpole", "sb3_on_policy", "contrib", ZOO_TRPO_CARTPOLE, 8.0, 1_000_000, 20_000,
        "The zoo's settings for TRPO, which the peer runs: it searches along the line where NPG takes the whole step, and has no NPG. "
        + RESETS,
    ),
    "trpo-cheetah": Case(
        "trpo-cheetah", "sb3_on_policy", "contrib", ZOO_TRPO_CHEETAH, 8.0, 200_000, 10_000,
        "The zoo's settings. Yozh steps EnvPool's environment in its program, the peer Gymnasium's. " + RESETS,
    ),
    "trpo-cheetah-16": Case(
        "trpo-cheetah-16", "sb3_on_policy", "contrib", ZOO_TRPO_CHEETAH, 8.0, 300_000, 10_000,
        "Yozh runs 16 streams of 128 steps, the peer 2 of 1,024; EnvPool's environment, the peer Gymnasium's. " + RESETS,
    ),
    "trpo-cheetah-hosted": Case(
        "trpo-cheetah-hosted", "sb3_on_policy", "contrib", ZOO_TRPO_CHEETAH, 8.0, 80_000, 10_000,
        "The zoo's settings. Plain Gymnasium on both sides. " + RESETS,
    ),
}  # fmt: skip
COLD_START = "cold-start"
