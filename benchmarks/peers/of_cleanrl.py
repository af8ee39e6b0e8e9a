"""A script of CleanRL, as it is, from the checkout that the environment variable CLEANRL names.

It says its rate every hundred steps once it learns; the time between these lines is what is measured, the first ten left out.
"""

import builtins
import json
import os
import runpy
import sys
import tempfile
import time

import torch

steps, settings = int(sys.argv[1]), json.loads(sys.argv[2])
torch.set_num_threads(settings.pop("threads"))
script, began, moments, say = settings.pop("script"), time.perf_counter(), [], print


def heard(*words, **options):
    if words and words[0] == "SPS:":
        moments.append(time.perf_counter())


home = os.path.abspath(os.environ["CLEANRL"])
sys.path.insert(0, home)
os.chdir(tempfile.mkdtemp())  # it makes a folder for TensorBoard
arguments = settings | {"total-timesteps": steps}
sys.argv = [script, *(x for name, value in arguments.items() for x in (f"--{name}", str(value)))]
builtins.print = heard
runpy.run_path(os.path.join(home, "cleanrl", f"{script}.py"), run_name="__main__")
later = moments[10:]
seconds = later[-1] - later[0]
say(json.dumps({"steps": 100 * (len(later) - 1), "seconds": seconds, "compile_seconds": moments[0] - began}))
