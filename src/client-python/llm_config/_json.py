"""JSON as this package reads and writes it: whole numbers exactly, other numbers as `float` or, if asked, `Decimal`.

Written numbers keep their digits: an `int` of any length, and a `Decimal` as it stands. It does not stream.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

ParseFloat = Callable[[str], Any]

_text = json.JSONEncoder(ensure_ascii=False).encode


def loads(text: bytes | str, parse_float: ParseFloat | None = None) -> Any:
    """Parses JSON; `ValueError` when it is none. `NaN` and `Infinity` are none."""
    try:
        return json.loads(text, parse_float=parse_float, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def dumps(value: Any) -> bytes:
    """JSON text in UTF-8. `TypeError` or `ValueError` names the place of what has no JSON form."""
    parts: list[str] = []
    try:
        _write(value, "", parts.append)
        return "".join(parts).encode()
    except RecursionError:
        raise ValueError("value: it is nested too deeply, or contains itself") from None
    except UnicodeEncodeError:
        raise ValueError("value: a text contains half of a surrogate pair") from None


def _write(value: Any, path: str, out: Callable[[str], None]) -> None:
    if value is None:
        out("null")
    elif value is True:
        out("true")
    elif value is False:
        out("false")
    elif isinstance(value, str):
        out(_text(str(value)))
    elif isinstance(value, int):
        out(int.__repr__(value))
    elif isinstance(value, float):
        out(_finite(float.__repr__(value), math.isfinite(value), path))
    elif isinstance(value, Decimal):
        out(_finite(str(value), value.is_finite(), path))
    elif isinstance(value, Mapping):
        _write_object(value, path, out)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            out("," if index else "[")
            _write(item, f"{path}[{index}]", out)
        out("]" if value else "[]")
    else:
        raise TypeError(f"value{path}: {type(value).__name__} has no JSON form")


def _write_object(value: Mapping[Any, Any], path: str, out: Callable[[str], None]) -> None:
    opening = "{"
    for name, item in value.items():
        if not isinstance(name, str):
            raise TypeError(f"value{path}: a name in an object is {type(name).__name__}, not str")
        out(f"{opening}{_text(str(name))}:")
        _write(item, f"{path}.{name}", out)
        opening = ","
    out("}" if value else "{}")


def _finite(text: str, finite: bool, path: str) -> str:
    if not finite:
        raise ValueError(f"value{path}: {text} has no JSON form")
    return text
