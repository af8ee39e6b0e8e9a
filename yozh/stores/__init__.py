"""Where unrolls wait to be learnt from."""

from yozh.stores.latest import Latest
from yozh.stores.replay import Replay

__all__ = ["Latest", "Replay"]
