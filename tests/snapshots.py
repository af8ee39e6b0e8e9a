"""Writes `snapshots.json` anew."""

import json

from tests.contract import SMALL, cartpole, learnt, train
from tests.test_contract import SHORT, SNAPSHOTS, signature

if __name__ == "__main__":
    found = {
        name: signature(learnt(train(small.agent, cartpole(small.agent), SHORT)[0])) for name, small in SMALL.items()
    }
    SNAPSHOTS.write_text(json.dumps(found, indent=1) + "\n")
