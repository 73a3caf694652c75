"""Cuts a shell snippet into its commands, as far as docs use the shell's grammar. Runs nothing, expands nothing."""

import re
from collections.abc import Iterator

_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1(.*?)\n.*?^\2$", re.MULTILINE | re.DOTALL)
_SEPARATORS = ("&&", "||", ";;", "|", ";", "&", "\n")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_REDIRECTION = re.compile(r"\d*(>>|>|<)&?\d*")
_QUOTED_OR_WORD = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)|([^\s'"\\;|&<>#]+|\#)""", re.DOTALL)


def commands_of(snippet: str) -> list[list[str]]:
    """The words of each command, without assignments before it, redirections, comments and here-documents.

    Raises ValueError for what is not understood here.
    """
    text = _HEREDOC.sub(r"\3", snippet).replace("\\\n", " ")
    return [words for words in map(_without_assignments, _commands(text)) if words]


def _commands(text: str) -> Iterator[list[str]]:
    words: list[str] = []
    place = 0
    while place < len(text):
        if text[place] in " \t":
            place += 1
        elif text[place] == "#":
            place = (text + "\n").index("\n", place)
        elif separator := next((sign for sign in _SEPARATORS if text.startswith(sign, place)), ""):
            yield words
            words = []
            place += len(separator)
        elif redirection := _REDIRECTION.match(text, place):
            place = redirection.end()
            while text[place : place + 1] == " ":
                place += 1
            place = _word(text, place)[1]
        else:
            word, place = _word(text, place)
            words.append(word)
    yield words


def _word(text: str, place: int) -> tuple[str, int]:
    """The word that begins here, without its quotes, and where it ends."""
    parts = []
    while found := _QUOTED_OR_WORD.match(text, place):
        single, double, escaped, plain = found.groups()
        parts.append(next(part for part in (single, double, escaped, plain) if part is not None))
        place = found.end()
    if not parts and text[place : place + 1].strip():
        raise ValueError(f"not understood: {text[place : place + 40]!r}")
    return "".join(parts), place


def _without_assignments(words: list[str]) -> list[str]:
    while words and _ASSIGNMENT.match(words[0]):
        words = words[1:]
    return words
