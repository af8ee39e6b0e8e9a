"""Writes `snapshots.json` anew."""

import json

from tests.contract import TRAINED, cartpole, learnt, train
from tests.test_contract import SHORT, SNAPSHOTS, signature

if __name__ == "__main__":
    found = {name: signature(learnt(train(a, cartpole(a), SHORT)[0])) for name, a in TRAINED.items()}
    SNAPSHOTS.write_text(json.dumps(found, indent=1) + "\n")
