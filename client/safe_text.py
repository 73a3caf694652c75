"""What a terminal may be given of text that others wrote. Knows no terminal."""

import unicodedata

_KEPT = "\n\t"
_STEERING = {
    *map(chr, range(0x202A, 0x202F)),  # they turn the direction of what follows, so that a line reads otherwise
    *map(chr, range(0x2066, 0x206A)),
    *map(chr, range(0xE0000, 0xE0080)),  # letters that nobody sees
    "\u2028",
    "\u2029",
}


def printable(text: str) -> str:
    """The text without control characters: a model must not be able to write to the terminal as a program can.

    Without what starts it, the rest of an escape sequence is plain letters.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(letter) for letter in text)


def whole(text: str) -> str:
    """The text with halves of characters replaced: what can be encoded."""
    return text.encode("utf-8", "replace").decode()


def one_line(text: str) -> str:
    """The same in one line, with single spaces."""
    return " ".join(printable(text).split())


def _shown(letter: str) -> str:
    if letter in _KEPT:
        return letter
    category = unicodedata.category(letter)
    if category == "Cs":  # half a character: no terminal can be sent it
        return "\ufffd"
    return "" if category == "Cc" or letter in _STEERING else letter
