"""Where unrolls wait to be learnt from."""

from yozh.stores.columns import guess_stack
from yozh.stores.episodes import Episodes
from yozh.stores.host import HostReplay
from yozh.stores.latest import Latest
from yozh.stores.phase import Phase
from yozh.stores.prioritised import PrioritisedReplay
from yozh.stores.replay import Replay

__all__ = ["Episodes", "HostReplay", "Latest", "Phase", "PrioritisedReplay", "Replay", "guess_stack"]
