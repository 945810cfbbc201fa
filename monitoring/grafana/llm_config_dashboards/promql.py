"""Reads a query into the series that it selects: names and matchers. Whether the query is right, promtool says."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
  | (?P<range>\[[^\]]*\])
  | (?P<number>\d[\w.]*)
  | (?P<name>[a-zA-Z_:][\w:]*)
  | (?P<sign>[(){}])
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan", "atan2"}
_MATCHER = re.compile(r"(\w+)\s*(=~|!~|!=|=)\s*\"((?:\\.|[^\"\\])*)\"")


@dataclass(frozen=True)
class Selector:
    """A metric and what it is matched on, as (label, operator, value)."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def selectors(expr: str) -> list[Selector]:
    """Every selector of the query, in order."""
    tokens = [
        (match.lastgroup or "", match.group(), match.start(), match.end())
        for match in _TOKEN.finditer(expr)
        if not match.group().isspace()
    ]
    found: list[Selector] = []
    at = 0
    while at < len(tokens):
        kind, word, _, _ = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        at += 1
        if kind != "name" or word.lower() in _WORDS:
            continue
        if word in _GROUPING:
            if following == "(":
                while at < len(tokens) and tokens[at][1] != ")":
                    at += 1
            continue
        if following == "(" or following in ("by", "without"):
            continue
        matchers: tuple[tuple[str, str, str], ...] = ()
        if following == "{":
            start = tokens[at][3]
            while at < len(tokens) and tokens[at][1] != "}":
                at += 1
            end = tokens[at][2] if at < len(tokens) else len(expr)
            matchers = tuple((label, sign, value) for label, sign, value in _MATCHER.findall(expr[start:end]))
        found.append(Selector(word, matchers))
    return found
