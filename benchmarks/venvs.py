"""The peers' virtual environments: made on first use in `.peers/`, or in the folder that YOZH_PEERS names."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Installed in stages: torch by itself first, so that nothing chooses another build of it.
PINS = {
    "sb3": [["torch==2.13.0"], ["stable-baselines3==2.9.2", "gymnasium[box2d,classic-control,mujoco]==1.4.0"]],
    "contrib": [["torch==2.13.0"], ["sb3-contrib==2.9", "gymnasium[box2d,classic-control,mujoco]==1.4.0"]],
    "tianshou": [["torch==2.13.0"], ["tianshou==2.0.1", "gymnasium[classic-control]"]],
    "cleanrl": [
        ["torch==2.13.0"],
        [
            "gymnasium[classic-control]==0.29.1",
            "numpy==1.26.4",
            "tyro==1.0.17",
            "tensorboard",
            "jax==0.4.25",
            "jaxlib==0.4.25",
            "flax==0.8.2",
            "optax==0.2.2",
            "scipy==1.12.0",
        ],
    ],
    "sbx": [["sbx-rl==0.28.0", "gymnasium[box2d,mujoco]==1.4.0"]],
    "jax": [
        [
            "jax==0.10.2",
            "rejax==0.1.3",
            "gymnax==0.0.9",
            "flax==0.12.8",
            "distrax==0.1.9",
            "optax==0.2.8",
            "flashbax==0.1.3",
            "six",
        ]
    ],
}
ASK = """
import json, sys
from importlib import metadata
installed = {d.name.lower().replace("_", "-"): d.version for d in metadata.distributions()}
print(json.dumps({n: installed[n] for n in sys.argv[1:] if n in installed}))
"""


def python(name: str) -> Path:
    """The interpreter of a peer's environment, which is made or mended first if need be."""
    home = Path(os.environ.get("YOZH_PEERS", ROOT / ".peers")) / name
    exe = home / "bin" / "python"
    if not exe.exists():
        print(f"making the virtual environment of {name} in {home}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
    have = versions(name, exe)
    for stage in PINS[name]:
        wanted = {pin.split("==")[0].split("[")[0]: pin.partition("==")[2] for pin in stage}
        if any(n not in have or (v and not have[n].startswith(v)) for n, v in wanted.items()):
            print(f"installing {', '.join(stage)}", flush=True)
            pip = [exe, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *stage]
            subprocess.run(pip, check=True)
    return exe


def versions(name: str, exe: Path) -> dict[str, str]:
    """Of the packages that are pinned."""
    names = [pin.split("==")[0].split("[")[0] for stage in PINS[name] for pin in stage]
    return json.loads(subprocess.run([exe, "-c", ASK, *names], check=True, capture_output=True, text=True).stdout)
