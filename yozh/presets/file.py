"""Presets in files: what `yozh tune` found, for `yozh train --preset FILE`."""

import json
from pathlib import Path
from typing import Any

from yozh.core import Agent, YozhError, require
from yozh.files import atomic_write
from yozh.presets.preset import Preset
from yozh.settings import build, describe

FORMAT = "yozh-preset-1"


def write(path: str | Path, preset: Preset, **about: Any) -> None:
    """Writes the preset as JSON, with anything else worth knowing of it. Settings that are not Yozh's own (a torso of
    yours) stand there as names, and cannot be read again."""
    held = {"steps": preset.steps, "reached": preset.reached, "source": preset.source}
    held |= {"env_options": describe(preset.env_options)} if preset.env_options else {}
    text = json.dumps(
        {"format": FORMAT, **about, **held, "settings": describe(preset.agent)}, indent=1, allow_nan=False
    )
    atomic_write(path, text + "\n")


def read(path: str | Path) -> Preset:
    """The preset in a file; a `YozhError` if it is not one. Nothing in the file is executed."""
    path = Path(path)
    require(path.is_file(), f"there is no preset at {path}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise YozhError(f"{path} is not a preset: {error}") from None
    known = isinstance(data, dict) and data.get("format") == FORMAT
    require(known, f"{path} is not a preset of this version of Yozh ({FORMAT})")
    try:
        agent, steps = build(data["settings"]), data["steps"]
    except KeyError as error:
        raise YozhError(f"{path} lacks {error}") from None
    except (YozhError, TypeError, ValueError) as error:
        raise YozhError(f"{path}: its settings cannot be read: {error}") from None
    require(isinstance(agent, Agent), f"{path} does not describe an agent")
    require(type(steps) is int and steps > 0, f"{path}: steps must be a positive whole number, not {steps!r}")
    options = data.get("env_options", {})
    require(isinstance(options, dict), f"{path}: env_options must be a mapping, not {options!r}")
    return Preset(agent, steps, str(data.get("reached", "")), str(data.get("source", "")), options)
