"""PPO or DQN of rejax, evaluation switched off."""

import importlib
import json
import sys
import time

import jax

steps, settings = int(sys.argv[1]), json.loads(sys.argv[2])
began = time.perf_counter()
kind = getattr(importlib.import_module("rejax"), settings.pop("algorithm", "PPO"))
algorithm = kind.create(total_timesteps=steps, eval_freq=steps, skip_initial_evaluation=True, **settings)
algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: ())
train = jax.jit(kind.train).lower(algorithm, jax.random.PRNGKey(0)).compile()
compiled = time.perf_counter() - began
began = time.perf_counter()
state, _ = jax.block_until_ready(train(algorithm, jax.random.PRNGKey(0)))
seconds = time.perf_counter() - began
print(json.dumps({"steps": int(state.global_step), "seconds": seconds, "compile_seconds": compiled}))
