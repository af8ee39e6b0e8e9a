"""What people type: numbers, and names that are almost right."""

import difflib
from collections.abc import Iterable


def near(name: str, known: Iterable[str]) -> str:
    """A sentence, with a space before it, that offers the names most like the mistyped one; empty if none is."""
    lower = {k.lower(): k for k in known}
    found = [lower[k] for k in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.6)]
    return f" Did you mean {' or '.join(found)}?" if found else ""


def whole(text: str) -> int:
    """Reads `300000`, `300_000` and `3e5`."""
    if text.lstrip("+-").replace("_", "").isdigit():
        return int(text)
    number = float(text)
    if not number.is_integer():
        raise ValueError(f"{text} is not a whole number")
    return int(number)


def positive(text: str) -> int:
    if (number := whole(text)) < 1:
        raise ValueError(f"{text} is not positive")
    return number
