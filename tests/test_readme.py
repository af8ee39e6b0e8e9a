"""What README.md promises, run: its Python, its commands, its options."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
YOZH = [sys.executable, "-c", "import sys; from yozh.app.cli import main; sys.exit(main())"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The `yozh ...` lines, without their comments."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("yozh ")]


def run(argv: list[str], folder: Path) -> str:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(argv[3:])}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_python(tmp_path: Path):
    """The blocks are one session: later ones use the names of earlier ones."""
    script, shortened = re.subn(r"steps=[\d_]+", "steps=2000", "\n\n".join(blocks("python")))
    assert shortened == 4
    script = re.sub(r"episodes=\d+", "episodes=5", script)
    (tmp_path / "session.py").write_text(script)
    mean, low_high = run([sys.executable, "session.py"], tmp_path).strip().splitlines()[-1].split(" ", 1)
    low, high = re.findall(r"[\d.]+", low_high)
    assert float(low) <= float(mean) <= float(high)
    for name in ("config.json", "metrics.jsonl", "policy.safetensors", "summary.json"):
        assert (tmp_path / "runs" / "cartpole" / name).is_file(), name


@pytest.mark.slow
def test_commands(tmp_path: Path):
    promised = commands()
    assert {words[0] for words in promised} == {"train", "evaluate", "report", "list"}
    for words in promised:
        if words[0] == "train":
            words += ["--steps", "2500", "--eval-episodes", "5", "--quiet"]
        elif words[0] == "evaluate":
            words[words.index("--episodes") + 1] = "5"
        said = run([*YOZH, *words], tmp_path)
        if words[0] != "list":
            assert ("mean return" if words[0] == "evaluate" else "report.html") in said
    for folder in (tmp_path / "runs" / "lander", tmp_path / "runs" / "CartPole-v1-ppo-0"):
        for name in ("config.json", "metrics.jsonl", "policy.safetensors", "summary.json", "report.html"):
            assert (folder / name).is_file(), f"{folder.name}/{name}"
        assert list(folder.glob("**/events.out.tfevents.*"))


@pytest.mark.slow
def test_options(tmp_path: Path):
    named = {words[0]: set() for words in commands()}
    for words in commands():
        named[words[0]] |= {word for word in words if word.startswith("--")}
    trainers = {words[1] for words in commands() if words[0] == "train"}
    known = {
        "train": run([*YOZH, "train", "--help"], tmp_path)
        + "".join(run([*YOZH, "train", agent, "--help"], tmp_path) for agent in trainers),
        "evaluate": run([*YOZH, "evaluate", "--help"], tmp_path),
    }
    assert {"--seed", "--out", "--agent.learning-rate", "--agent.torso.widths"} <= named["train"]
    for command, options in named.items():
        assert options <= set(re.findall(r"--[\w.-]+", known.get(command, ""))), command


def test_links_and_images_are_there():
    for path in re.findall(r"!?\[[^\]]*\]\(([^)#:]+)\)|`((?:docs|benchmarks)/[^`]*)`", README):
        assert (ROOT / next(filter(None, path))).exists(), path


def test_agents_and_backends_that_it_names():
    from yozh import agents
    from yozh.environments import registry

    table = README.partition("| agents |")[2].partition("\n")[0]
    assert set(re.findall(r"\b[A-Z][A-Z0-9]+\b", table)) == {cls.__name__ for cls in agents.names().values()}
    fastest = README.partition("takes the fastest backend")[2]
    assert tuple(re.findall(r"`(jax|envpool|gymnasium)`", fastest)[:3]) == registry.BACKENDS
