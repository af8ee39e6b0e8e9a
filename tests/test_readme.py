"""What README.md promises, run: its Python, its commands, its options."""

import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from yozh import agents

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


def modules(folder: Path) -> None:
    """Blocks that begin with a file's name are those files."""
    for block in blocks("python"):
        if name := re.match(r"# (\w+\.py)\n", block):
            (folder / name[1]).write_text(block)


PAGES = {"a2c": "a2c", "reinforce": "reinforce vpg", "hca": "hca", "es": "es ars finitedifferences", "acer": "acer qac", "ppo": "ppo",
         "mdpo_off_policy": "offpolicymdpo", "trpo": "trpo npg", "mdpo": "mdpo", "qprop": "qprop", "pqn": "pqn", "ppo ppg": "ppg"}  # fmt: skip


@pytest.mark.parametrize("pages", PAGES)
def test_a_page_names_every_argument_and_shows_a_picture(pages: str):
    folder = ROOT / "docs" / "algorithms"
    text = "".join((folder / f"{page}.md").read_text() for page in pages.split())
    for name in PAGES[pages].split():
        assert not [f.name for f in dataclasses.fields(agents.names()[name]) if f"`{f.name}`" not in text]
    shown = re.findall(r"!\[.+\]\((.+)\)", text)
    linked = re.findall(r"\]\(([\w/.]+\.(?:md|svg))\)", text)
    assert all((folder / path).exists() for path in {*shown, *linked})
    assert shown or pages == "mdpo_off_policy"


@pytest.mark.slow
def test_python(tmp_path: Path):
    """The blocks are one session: later ones use the names of earlier ones."""
    modules(tmp_path)
    script = "\n\n".join(b for b in blocks("python") if not re.match(r"# \w+\.py\n", b))
    script, shortened = re.subn(r"steps=[\d_]+", "steps=2000", script)
    assert shortened == 5
    script = re.sub(
        r"episodes=\d+", "episodes=5", script.replace('"runs/cartpole", steps=2000', '"runs/cartpole", steps=3000')
    )
    (tmp_path / "session.py").write_text(script)
    first = run([sys.executable, "session.py"], tmp_path).strip().splitlines()[0]
    mean, low, high = map(float, re.findall(r"[\d.]+", first))
    assert low <= mean <= high
    for name in (
        "config.json",
        "metrics.jsonl",
        "policy.safetensors",
        "best.safetensors",
        "summary.json",
        "checkpoints",
    ):
        assert (tmp_path / "runs" / "cartpole" / name).exists(), name


SHORT = {
    "train": ["--steps", "2500", "--eval-episodes", "100", "--quiet"],
    "resume": ["--steps", "5000", "--quiet"],
    "evaluate": ["--episodes", "5"],
    "tune": ["--trials", "2", "--steps", "1000", "--seeds", "1"],
}
"""What makes the promised commands quick; later options override earlier ones."""


@pytest.mark.slow
def test_commands(tmp_path: Path):
    from yozh.app.commands import COMMANDS

    modules(tmp_path)
    promised = commands()
    assert {words[0] for words in promised} == set(COMMANDS)
    for words in promised:
        run([*YOZH, *words, *SHORT.get(words[0], [])], tmp_path)
    for folder in (
        tmp_path / "runs" / "lander",
        tmp_path / "runs" / "picker",
        tmp_path / "runs" / "cartpole-ppo" / "seed-0",
    ):
        for name in ("config.json", "metrics.jsonl", "policy.safetensors", "summary.json", "report.html"):
            assert (folder / name).is_file(), f"{folder.name}/{name}"
        assert list(folder.glob("**/events.out.tfevents.*"))
    for name in ("lander.gif", "compare.html", "runs/cartpole-ppo/report.html", "runs/lander/policy.onnx"):
        assert (tmp_path / name).is_file(), name


@pytest.mark.slow
def test_options(tmp_path: Path):
    named: dict[str, set[str]] = {}
    for words in commands():
        named.setdefault(words[0], set()).update(word for word in words if word.startswith("--"))
    trainers = {words[1] for words in commands() if words[0] == "train" and not words[1].startswith("-")}
    known = {command: run([*YOZH, command, "--help"], tmp_path) for command in named}
    known["train"] += "".join(run([*YOZH, "train", agent, "--help"], tmp_path) for agent in trainers)
    assert {"--seed", "--out", "--agent.learning-rate", "--agent.torso.widths"} <= named["train"]
    for command, options in named.items():
        assert options <= set(re.findall(r"--[\w.-]+", known[command])), command


def test_links_and_images_are_there():
    for path in re.findall(r"!?\[[^\]]*\]\(([^)#:]+)\)|`((?:docs|benchmarks)/[^`]*)`", README):
        assert (ROOT / next(filter(None, path))).exists(), path


def test_agents_and_backends_that_it_names():
    from yozh import agents
    from yozh.environments import registry

    table = README.partition("| agents |")[2].partition("\n")[0]
    assert set(re.findall(r"\b[A-Z][A-Za-z0-9]*[A-Z][A-Za-z0-9]*\b", table)) == {
        cls.__name__ for cls in agents.names().values()
    }
    fastest = README.partition("takes the fastest backend")[2]
    assert tuple(re.findall(r"`(jax|envpool|gymnasium)`", fastest)[:3]) == registry.BACKENDS
