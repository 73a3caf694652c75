"""What the parsers of tags share: how much of a text must be held back before a tag. Knows no tag."""


def open_length(text: str, tag: str) -> int:
    """How many characters at the end of `text` may belong to a tag that is to come, or to the white space before it."""
    start = next((n for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), 0)
    before = text[: len(text) - start]
    return start + len(before) - len(before.rstrip())
