"""What an agent is handed, held against the fields that it declares."""

import dataclasses
import inspect
import numbers
import types
import typing
from collections.abc import Iterator
from typing import Any

from yozh.core import require


def check_fields(name: str, agent: Any) -> None:
    """Refuses a value that is not of its field's type, and says what the field takes. Fields with a converter are left to it."""
    for field in dataclasses.fields(agent):
        if "converter" not in field.metadata:
            kinds, value = tuple(_kinds(field.type)), getattr(agent, field.name)
            what = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
            require(
                isinstance(value, kinds),
                lambda f=field, k=kinds, w=what: f"{name}: {f.name} takes {_takes(k)}, not {w}",
            )


def _kinds(declared: Any) -> Iterator[type]:
    """The classes of a declaration; any whole number will do for an `int`, and anything for what is no class."""
    for kind in typing.get_args(declared) if isinstance(declared, types.UnionType) else (declared,):
        kind = numbers.Integral if kind is int else typing.get_origin(kind) or kind
        yield kind if isinstance(kind, type) and kind is not Any else object


def _takes(kinds: tuple[type, ...]) -> str:
    names = {
        numbers.Integral: "a whole number",
        bool: "true or false",
        types.NoneType: "none",
        str: "a text",
        tuple: "a tuple",
    }
    return " or ".join(names.get(kind) or ", ".join(sorted(map("{}()".format, _made(kind)))) for kind in kinds)


def _made(kind: type) -> set[str]:
    """The names of Yozh's own classes of a kind, those of which there can be an object."""
    below = set[str]().union(*map(_made, kind.__subclasses__()))
    ours = kind.__module__.partition(".")[0] == "yozh" and not inspect.isabstract(kind)
    return below | {kind.__name__} if ours else below
