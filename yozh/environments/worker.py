"""What runs in a process of `Workers`, and the memory it shares with the parent.

A process runs this file as a script, and the file imports nothing of Yozh: so JAX is not loaded in it.
"""

import faulthandler
import math
import mmap
import os
import pickle
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

MASK = "action_mask"
"""The name, in an observation or in `info`, under which Gymnasium's environments tell the legal actions."""

STEP, RESET, REST = 0, 1, 2
"""What a stream is to do next; one that rests is left as the parent wrote it, and resets after that."""

GO, END = b"g", b"e"
"""What the parent says, a byte each: carry out `Block.todo`; close the environments and go."""

DONE, RAISED, MISFIT = b"d", b"r", b"m"
"""What a worker answers: all is in the block; an environment raised; an environment told what is no step (a message follows)."""


class Block:
    """One piece of memory as arrays that lead with `[n]`, laid out alike in the parent and in its workers.

    Without memory it only finds out the `size`, in bytes.
    """

    def __init__(self, memory: mmap.mmap | None, observation: Any, action: Any, n: int, workers: int, mask: tuple[int, ...] | None):  # fmt: skip
        from gymnasium.vector.utils import create_empty_array

        self.size, self._memory = 0, memory
        self.todo = self._array((n,), np.uint8)
        self.seed = self._array((n,), np.int64)  # of the next reset; negative: the stream's randomness goes on
        self.reward = self._array((n,), np.float64)
        self.terminated = self._array((n,), np.bool_)
        self.truncated = self._array((n,), np.bool_)
        self.at = self._array((workers,), np.int64)  # the stream each worker is busy with
        self.legal = None if mask is None else self._array((n, *mask), np.bool_)
        self.action: Any = create_empty_array(action, n, self._array)
        self.obs: Any = create_empty_array(observation, n, self._array)

    def _array(self, shape: tuple[int, ...], dtype: Any) -> Any:
        start = -(-self.size // 64) * 64  # a cache line
        self.size = start + math.prod(shape) * np.dtype(dtype).itemsize
        return None if self._memory is None else np.ndarray(shape, dtype, self._memory, start)


class _Misfit(Exception):
    """An environment told what is no step. Holds a text, or the observation that does not fit."""


def _put(out: Any, i: int, x: Any) -> None:
    """Writes a sample into row `i`, as strict as `np.stack` is; raises what indexing raises where a part is missing."""
    if isinstance(out, np.ndarray):
        x = np.asarray(x)
        if x.shape != out.shape[1:] or (x.dtype != out.dtype and not np.can_cast(x.dtype, out.dtype, "same_kind")):
            raise ValueError
        out[i] = x
    else:
        for key, part in out.items() if isinstance(out, dict) else enumerate(out):
            _put(part, i, x[key])


def _take(x: Any, i: int) -> Any:
    """Row `i` as a sample that the environment may keep."""
    if isinstance(x, np.ndarray):
        return x[i].copy()
    return {k: _take(part, i) for k, part in x.items()} if isinstance(x, dict) else tuple(_take(part, i) for part in x)


def _number(reward: Any) -> float:
    if type(reward) is not float:
        x = np.asarray(reward)
        if x.size != 1 or x.dtype.kind not in "biuf":
            raise _Misfit(f"the reward is {_short(repr(reward))}, and a number is expected")
        return x.item()
    return reward


def _parts(answer: Any, names: str) -> Any:
    count = names.count(",") + 1
    if not isinstance(answer, tuple | list) or len(answer) != count:
        seen = f"{len(answer)} values" if isinstance(answer, tuple | list) else f"a {type(answer).__name__}"
        raise _Misfit(f"{'step' if count == 5 else 'reset'} returned {seen}, and ({names}) is expected")
    return answer


class Streams:
    """The environments of one worker."""

    def __init__(self, make: Callable[[], Any], streams: range):
        import gymnasium

        self._streams, self._envs = streams, [make() for _ in streams]
        self.mask: tuple[int, ...] | None = None
        """The shape of the mask in `info`, if a first reset tells one."""
        first = self._envs[0]
        for i, env in zip(streams, self._envs, strict=True):
            if not isinstance(env, gymnasium.Env):
                raise TypeError(f"a Gymnasium environment is expected, and a {type(env).__name__} was made")
            if (env.observation_space, env.action_space) != (first.observation_space, first.action_space):
                raise ValueError(f"the spaces of stream {i} are not those of stream {streams[0]}")
            _, info = _parts(env.reset(seed=i), "observation, info")
            if MASK in info:
                self.mask = np.shape(info[MASK])
        self.spaces = first.observation_space, first.action_space
        self.horizon: int | None = time_limit(first)

    def carry_out(self, block: Block, worker: int) -> None:
        """What `block.todo` asks of each stream, one after the other, with next-step auto-reset."""
        for i, env in zip(self._streams, self._envs, strict=True):
            block.at[worker] = i
            todo = block.todo[i]
            if todo == REST:
                block.todo[i] = RESET
                continue
            if todo == RESET:
                seed, block.seed[i] = int(block.seed[i]), -1
                told = env.reset() if seed < 0 else env.reset(seed=seed)
                obs, info = _parts(told, "observation, info")
                reward, terminated, truncated = 0.0, False, False
            else:
                told = env.step(_take(block.action, i))
                obs, reward, terminated, truncated, info = _parts(told, "observation, reward, terminated, truncated, info")  # fmt: skip
            try:
                _put(block.obs, i, obs)
            except (KeyError, IndexError, TypeError, ValueError):
                raise _Misfit(obs) from None
            block.reward[i] = _number(reward)
            block.terminated[i], block.truncated[i] = bool(terminated), bool(truncated)
            block.todo[i] = RESET if terminated or truncated else STEP
            if block.legal is not None:
                _put_mask(block.legal, i, info)

    def close(self) -> None:
        for env in self._envs:
            env.close()


def time_limit(env: Any) -> int | None:
    """The steps after which a TimeLimit wrapper truncates."""
    while env is not None:
        if (limit := vars(env).get("_max_episode_steps")) is not None:
            return int(limit)
        env = vars(env).get("env")
    return None


def _put_mask(legal: np.ndarray, i: int, info: dict[str, Any]) -> None:
    mask = np.asarray(info[MASK]) if MASK in info else np.True_
    if MASK in info and mask.shape != legal.shape[1:]:
        raise _Misfit(f"info[{MASK!r}] has shape {mask.shape}, and had {legal.shape[1:]} at first")
    legal[i] = mask != 0


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:297] + "..."


def _tell(error: Exception) -> str:
    """The error and the last lines of its traceback, in one line."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__][-3:]
    where = "; ".join(f"{Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in frames)
    return f"raised {type(error).__name__}: {_short(str(error))}" + (f" ({where})" if where else "")


def _watch(parent: int, command: int) -> None:
    """Ends this process once its parent is gone, whatever the environment is busy with."""
    gone = select.poll()
    gone.register(command, 0)  # hang-up alone
    while not gone.poll(1000) and os.getppid() == parent:
        pass
    os._exit(1)


def main(parent: int, command: int, answer: int, memory: int, notes: int) -> None:
    """Serves until the parent says `END` or is gone. All but `parent`, a process id, are file descriptors."""
    import cloudpickle

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable(notes, all_threads=False)
    faulthandler.register(signal.SIGUSR1, notes, all_threads=False)
    threading.Thread(target=_watch, args=(parent, command), daemon=True).start()
    asked, told = Connection(command, writable=False), Connection(answer, readable=False)
    sys.path[:], worker, streams = asked.recv()
    try:
        serving = Streams(pickle.loads(asked.recv_bytes()), streams)
        hello = cloudpickle.dumps((serving.spaces, serving.mask, serving.horizon))
        os.write(answer, DONE)
        told.send_bytes(hello)
        n, workers, mask = asked.recv()
        block = Block(mmap.mmap(memory, 0), *serving.spaces, n, workers, mask)
        while os.read(command, 1) == GO:
            serving.carry_out(block, worker)
            os.write(answer, DONE)
        serving.close()
    except _Misfit as misfit:
        os.write(answer, MISFIT)
        told.send_bytes(_packed(*misfit.args))
    except Exception as error:
        os.write(answer, RAISED)
        told.send((type(error).__name__, str(error), _tell(error)))


def _packed(what: Any) -> bytes:
    import cloudpickle

    try:
        return cloudpickle.dumps(what)
    except Exception as error:
        return cloudpickle.dumps(f"the observation is a {type(what).__name__}, and cannot be shown: {error}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
