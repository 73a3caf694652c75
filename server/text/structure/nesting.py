"""How deep groups nest in regular expressions and grammars, told without parsing them. Knows no limits."""

import re
from collections.abc import Iterable

_IN_REGEX = re.compile(
    r"""
      \\.                                    # an escaped character
    | \[ \^? \]? (?: \\. | [^\]\\] )* \]?    # a class of characters
    | ( [()] )
    """,
    re.VERBOSE | re.DOTALL,
)
_IN_GRAMMAR = re.compile(
    r"""
      " (?: \\. | [^"\\\n] )* "?             # a text
    | (?: // | \# ) [^\n]*                   # a comment
    | / (?: \\. | [^/\\\n] )+ /              # a regular expression
    """,
    re.VERBOSE | re.DOTALL,
)
_BRACKETS = re.compile(r"[()\[\]{}]")


def regex_depth(pattern: str) -> int:
    """How deep the groups of a regular expression nest."""
    return _depth(match[1] for match in _IN_REGEX.finditer(pattern) if match[1])


def grammar_depth(text: str) -> int:
    """How deep brackets nest in a grammar, outside texts and comments, or groups in one of its regular expressions."""
    regexes = (match[0] for match in _IN_GRAMMAR.finditer(text) if match[0][0] == "/" and match[0][1] != "/")
    return max(_depth(_BRACKETS.findall(outline(text))), *map(regex_depth, regexes), 0)


def outline(text: str) -> str:
    """A grammar without its texts, comments and regular expressions."""
    return _IN_GRAMMAR.sub(" ", text)


def _depth(brackets: Iterable[str]) -> int:
    deepest = depth = 0
    for bracket in brackets:
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    return deepest
