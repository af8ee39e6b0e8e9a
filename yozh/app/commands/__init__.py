"""The commands, one file each: `add` declares the arguments, `run` carries the command out and gives the exit code.

Their modules import nothing heavy before `run`, so that help and mistakes are quick.
"""

COMMANDS = {
    "train": "train an agent in an environment",
    "resume": "go on with a run that was interrupted, or train it for longer",
    "evaluate": "measure a trained policy",
    "doctor": "look at an environment and say what is wrong with it",
    "compare": "compare runs: curves, scores, intervals",
    "list": "show agents, environments, presets, or the settings of an agent",
    "tune": "look for better settings of an agent",
    "report": "write the report of a run anew",
    "watch": "see a trained policy at work, in a window or a film",
    "export": "write a trained policy as ONNX or StableHLO",
}
"""Name and what it is for; the module has the same name."""
