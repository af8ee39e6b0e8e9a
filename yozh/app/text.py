"""What people type: numbers, and names that are almost right."""

import difflib
from collections.abc import Iterable


def near(name: str, known: Iterable[str]) -> str:
    """A sentence, with a space before it, that offers the names most like the mistyped one, or all if they are few."""
    likeness = {k: difflib.SequenceMatcher(None, name.lower(), k.lower()).ratio() for k in known}
    best = max(likeness.values(), default=0.0)
    found = [k for k in likeness if likeness[k] >= max(0.6, best - 0.05)]
    if found:
        return f" Did you mean {' or '.join(found[:3])}?"
    return f" There are {', '.join(likeness)}." if 0 < len(likeness) < 8 else ""


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
