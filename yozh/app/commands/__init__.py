"""The commands, one file each: `add` declares the arguments, `run` carries the command out and gives the exit code.

Their modules import nothing heavy before `run`, so that help and mistakes are quick.
"""

COMMANDS = {
    "train": "train an agent in an environment",
    "evaluate": "measure a trained policy",
    "list": "show agents, environments, presets, or the settings of an agent",
    "report": "write the report of a run anew",
}
"""Name and what it is for; the module has the same name."""
