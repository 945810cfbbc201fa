"""Values of a namespace into what an application wants: a dataclass, a pydantic model, or what a callable makes.

For dataclasses: each field is a key of the namespace (`field(metadata={"key": "max-tokens"})` names another), nested
dataclasses are objects, and types are checked, not converted, but for whole numbers where a `float` is wanted. Keys
without a field are ignored, so that a new key does not break an application that does not know it. pydantic is used
only through the models that it is given, never imported.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar, cast

from .errors import ParseError

T = TypeVar("T")
Parse = Callable[[Mapping[str, Any]], T]


def parser(target: type[T] | Parse[T] | None) -> Parse[T]:
    """The function that makes a `T`; raises `ParseError` when the values do not fit."""
    if target is None:
        return lambda values: cast(T, values)
    if isinstance(target, type):
        validate = getattr(target, "model_validate", None)
        if callable(validate):
            return _guarded(validate)
        if dataclasses.is_dataclass(target):
            return _guarded(lambda values: cast(T, _dataclass(target, values, "")))
    if not callable(target):
        raise TypeError("parse: must be a dataclass, a pydantic model or a callable")
    return _guarded(cast("Parse[T]", target))


def _guarded(parse: Callable[[Mapping[str, Any]], Any]) -> Parse[Any]:
    def guarded(values: Mapping[str, Any]) -> Any:
        try:
            return parse(values)
        except ParseError:
            raise
        # What a user's code raises on a value that it does not expect cannot be known.
        except Exception as error:
            raise ParseError(f"{type(error).__name__}: {error}") from error

    return guarded


def _dataclass(target: type[Any], values: Any, path: str) -> Any:
    if not isinstance(values, Mapping):
        raise ParseError(f"{path or 'the namespace'}: must be an object, not {_name(values)}")
    hints = typing.get_type_hints(target)
    arguments: dict[str, Any] = {}
    for one in dataclasses.fields(target):
        if not one.init:
            continue
        key = one.metadata.get("key", one.name)
        place = f"{path}.{key}" if path else str(key)
        if key in values:
            arguments[one.name] = _value(hints[one.name], values[key], place)
        elif one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            raise ParseError(f"{place}: is missing")
    return target(**arguments)


def _value(wanted: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(wanted)
    if wanted is Any:
        return value
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return _dataclass(wanted, value, path)
    if origin is typing.Union or origin is types.UnionType:
        return _union(wanted, value, path)
    if origin is typing.Literal:
        if any(value == one and type(value) is type(one) for one in typing.get_args(wanted)):
            return value
        raise ParseError(f"{path}: must be one of {typing.get_args(wanted)}")
    if origin is not None:
        return _generic(origin, typing.get_args(wanted), value, path)
    if wanted is None or wanted is type(None):
        matches = value is None
    elif wanted is float:
        matches = isinstance(value, (int, float)) and not isinstance(value, bool)
        value = float(value) if matches else value
    elif wanted is Decimal:
        matches = isinstance(value, (int, Decimal)) and not isinstance(value, bool)
        value = Decimal(value) if matches else value
    elif wanted is int:
        matches = isinstance(value, int) and not isinstance(value, bool)
    else:
        matches = isinstance(value, wanted) if isinstance(wanted, type) else True
    if not matches:
        shown = getattr(wanted, "__name__", str(wanted))
        raise ParseError(f"{path}: must be {shown}, not {_name(value)}")
    return value


def _union(wanted: Any, value: Any, path: str) -> Any:
    reasons = []
    for one in typing.get_args(wanted):
        try:
            return _value(one, value, path)
        except ParseError as error:
            reasons.append(error.detail)
    raise ParseError("; or ".join(reasons))


def _generic(origin: Any, arguments: tuple[Any, ...], value: Any, path: str) -> Any:
    if origin in (list, Sequence) or (origin is tuple and arguments[1:] == (...,)):
        if not isinstance(value, list):
            raise ParseError(f"{path}: must be a list, not {_name(value)}")
        items = [_value(arguments[0], one, f"{path}[{at}]") for at, one in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ParseError(f"{path}: must be an object, not {_name(value)}")
        return {name: _value(arguments[1], one, f"{path}.{name}") for name, one in value.items()}
    raise ParseError(f"{path}: {origin} is not supported in a dataclass; use a callable")


def _name(value: Any) -> str:
    return "null" if value is None else type(value).__name__
