"""Writing files so that a reader never sees half of one."""

import fcntl
import json
import os
import tempfile
from pathlib import Path

import numpy as np


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """Readers see the old file or the new one, never a part, even if the machine stops in between. An `OSError` names the file."""
    path = Path(path)
    try:
        _atomic_write(path, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _atomic_write(path: Path, content: bytes | str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def safetensors(tensors: dict[str, np.ndarray], about: dict[str, str]) -> bytes:
    """A safetensors file as bytes. The same content gives the same bytes, which the format's own writer does not promise."""
    from safetensors.numpy import save

    data = save(tensors, about)
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return b"".join((len(header).to_bytes(8, "little"), header, memoryview(data)[end:]))


class Lock:
    """A folder that one process writes to. The lock goes with the process, however that ends."""

    def __init__(self, folder: Path):
        self._file = open(folder / ".lock", "a")  # noqa: SIM115
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise BlockingIOError(f"another process is writing to {folder}") from None

    def fileno(self) -> int:
        """For `subprocess`'s `pass_fds`: a child that has it holds the lock as well, should it outlive this process."""
        return self._file.fileno()

    def release(self) -> None:
        self._file.close()
