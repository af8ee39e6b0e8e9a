"""Hyper-parameters by name: set from text, and listed with their docstrings."""

import ast
import builtins
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from yozh.app.text import near, whole
from yozh.core import YozhError
from yozh.settings import describe

T = TypeVar("T")
Readers = dict[str, Callable[[str], Any]]


class Option(NamedTuple):
    name: str
    """As typed after `--agent.`: `learning-rate`, `epsilon.end`."""
    value: str
    doc: str
    """What stands under the field, or under the part that it belongs to."""


def override(agent: T, settings: Mapping[str, str], prefix: str = "--agent.") -> T:
    """The agent with settings such as `{"learning-rate": "6e-4", "epsilon.end": "0.05"}`, checked as if newly made.

    All settings of one module are applied at once, so that those which depend on each other may change together.
    """
    fields = {_dashed(f.name): f for f in _fields(agent)}
    changes: dict[str, Any] = {}
    inner: dict[str, dict[str, str]] = {}
    for name, text in settings.items():
        head, _, rest = _dashed(name).partition(".")
        if head not in fields:
            known = [prefix + name for name in (*fields, *(o.name for o in options(agent)))]
            raise YozhError(
                f"{type(agent).__name__} has no option {prefix}{name}.{near(prefix + _dashed(name), known)}"
            )
        if rest:
            inner.setdefault(head, {})[rest] = text
        else:
            changes[fields[head].name] = _parse(fields[head], getattr(agent, fields[head].name), text, prefix + head)
    for head, rest in inner.items():
        part = getattr(agent, fields[head].name)
        if not _has_options(part):
            raise YozhError(
                f"{prefix}{head} is {_text(part)}: it has no settings of its own, such as .{next(iter(rest))}"
            )
        changes[fields[head].name] = override(part, rest, f"{prefix}{head}.")
    try:
        return dataclasses.replace(agent, **changes)  # type: ignore[type-var]
    except (ValueError, TypeError) as error:
        raise YozhError(f"{' '.join(prefix + n + ' ' + v for n, v in settings.items())}: {error}") from error


def options(agent: Any) -> list[Option]:
    """Every setting of the agent and of its parts."""
    return list(_walk(agent, ""))


@functools.cache
def docstrings(cls: type) -> dict[str, str]:
    """What stands under each field in the source of the class and its bases, on one line."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        try:
            (node,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError):
            continue
        body = getattr(node, "body", [])
        for field, text in itertools.pairwise(body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(value=str(doc))):
                    found[name] = " ".join(doc.split())
    return found


def _walk(part: Any, prefix: str, about: str = "") -> Iterator[Option]:
    docs = docstrings(type(part))
    for f in _fields(part):
        value, name, doc = getattr(part, f.name), prefix + _dashed(f.name), docs.get(f.name, about)
        if _is_number(f, value):
            (only,) = _fields(value)
            yield Option(name, _text(getattr(value, only.name)), doc)
        elif _has_options(value):
            yield from _walk(value, f"{name}.", doc)
        else:
            yield Option(name, _text(value), doc)


def _parse(field: dataclasses.Field, present: Any, text: str, option: str) -> Any:
    if _has_options(present) and not _takes_number(field):
        names = ", ".join(f"{option}.{o.name}" for o in options(present))
        raise YozhError(f"{option} is made of parts, set through {names or 'Python only'}")
    members = typing.get_args(field.type) if _is_union(field.type) else (field.type,)
    optional = present is None or type(None) in members
    if optional and text.lower() == "none":
        return None
    readers = _merged(members) or _readers(_type_of(present))
    for read in readers.values():
        try:
            return read(text)
        except (ValueError, OverflowError):
            continue
    if not readers:
        raise YozhError(f"{option} holds {_text(present)}, which can only be changed in Python")
    raise YozhError(f"{option} takes {' or '.join([*readers, *(['none'] if optional else [])])}, not {text!r}")


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _type_of(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple[_type_of(value[0]) if value else int, ...]
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return type(np.asarray(value).item()) if value.ndim == 0 else None
    return float if _has_options(value) else type(value)


def _merged(annotations: Iterable[Any]) -> Readers:
    return {name: read for a in annotations for name, read in _readers(a).items()}


def _readers(annotation: Any) -> Readers:
    """What a field of this type takes: its kinds in words, each with the function that reads it."""
    args = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple:
        elements = _readers(args[0])
        return {f"{name.removeprefix('a ')}s separated by commas": _sequence(read) for name, read in elements.items()}
    if typing.get_origin(annotation) is typing.Literal:
        return {" or ".join(map(str, args)): lambda text: args[[str(a) for a in args].index(text)]}
    if isinstance(annotation, type) and hasattr(annotation, "dtypes"):  # jaxtyping's
        annotation = float if any("float" in d for d in annotation.dtypes) else int
    match annotation:
        case builtins.bool:
            return {"true or false": lambda text: (False, True)[("false", "true").index(text.lower())]}
        case builtins.int:
            return {"a whole number": whole}
        case builtins.float:
            return {"a number": float}
        case builtins.str:
            return {"text": str}
    return {}


def _sequence(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: tuple(read(t.strip()) for t in text.strip("()[] ").split(",") if t.strip())


def _text(value: Any) -> str:
    value = describe(value)
    if isinstance(value, dict):  # what is no JSON of its own: a number that is not finite, a function
        (value,) = value.values()
    if isinstance(value, list):
        return ",".join(map(_text, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:_}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def _fields(part: Any) -> list[dataclasses.Field]:
    return [f for f in dataclasses.fields(part) if f.init]


def _has_options(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _takes_number(field: dataclasses.Field) -> bool:
    """Whether the field's converter makes a module of a number, as it does of a schedule."""
    try:
        return _has_options(field.metadata["converter"](0.0))
    except Exception:
        return False


def _is_number(field: dataclasses.Field, value: Any) -> bool:
    """Whether the module stands for one number: a constant where a schedule could be."""
    return _has_options(value) and len(_fields(value)) == 1 and _takes_number(field)


def _dashed(name: str) -> str:
    return name.replace("_", "-")
