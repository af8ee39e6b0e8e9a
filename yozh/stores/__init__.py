"""Where unrolls wait to be learnt from."""

from yozh.stores.columns import guess_stack
from yozh.stores.episodes import Episodes
from yozh.stores.fresh import FreshReplay
from yozh.stores.host import HostReplay
from yozh.stores.latest import Latest
from yozh.stores.phase import Phase
from yozh.stores.prioritised import PrioritisedReplay
from yozh.stores.replay import Replay

__all__ = [
    "Episodes", "FreshReplay", "HostReplay", "Latest", "Phase", "PrioritisedReplay", "Replay", "guess_stack",
]  # fmt: skip
