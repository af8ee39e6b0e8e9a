"""Every test can fail: small faults, each with the test that must notice it.

`python -m tests.mutations [words]` plants each fault (those whose file or test contains one of the words) in a copy of
the package, runs its test there and demands that it fails. The faults that `tests/test_NAME.py` must notice are listed in
`tests/mutations/NAME.toml`: under the file and the test, each as the text that is there and the text that takes its place.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def listed() -> Iterator[tuple[str, str, str, str]]:
    """File, text, mutated text and the test."""
    for path in sorted(Path(__file__).parent.glob("*.toml")):
        for file, tests in tomllib.loads(path.read_text()).items():
            for test, faults in tests.items():
                for original, mutated in faults:
                    yield file, original, mutated, f"tests/test_{path.stem}.py::{test}"


def survives(file: str, original: str, mutated: str, node: str) -> str | None:
    """Why the fault went unnoticed, or nothing if the test failed as it must."""
    source = (ROOT / file).read_text()
    if source.count(original) != 1:
        return f"the snippet occurs {source.count(original)} times"
    with tempfile.TemporaryDirectory() as folder:
        for part in ("yozh", "tests"):
            shutil.copytree(ROOT / part, Path(folder, part), ignore=shutil.ignore_patterns("__pycache__"))
        Path(folder, file).write_text(source.replace(original, mutated))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", node]
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True
        )
    return None if done.returncode == 1 else f"pytest ended with {done.returncode}"


def main(words: list[str]) -> int:
    chosen = [m for m in listed() if not words or any(w in m[0] or w in m[3] for w in words)]
    alive = 0
    for file, original, mutated, node in chosen:
        reason = survives(file, original, mutated, node)
        alive += reason is not None
        print(f"{'SURVIVED' if reason else 'red':8} {file}: {original} -> {mutated} ({reason or node})", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} mutations turn their test red")
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
