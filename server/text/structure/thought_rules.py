"""The thoughts that an answer may begin with, as rules in Lark. Knows no structure behind them."""

import json
import re

from server.text.reasoning import BEHIND_THOUGHTS, THINK_CLOSE, THINK_OPEN, Thoughts

ANY_TEXT = "(?s:.*)"
_CLOSE = re.escape(THINK_CLOSE).replace("/", r"\/")
OPENED_LATE = rf"\s*{THINK_OPEN}{ANY_TEXT}"
"""Text that begins with thoughts, where white space may come first; as it stands between slashes."""


def before_bound(thoughts: Thoughts) -> list[str]:
    """`start`: thoughts, and then `answer`, which has a form: so it begins behind a line that is there for that."""
    if thoughts is Thoughts.NONE:
        return ["start: answer"]
    is_open = thoughts is Thoughts.OPEN
    return [
        "start: thoughts answer" if is_open else "start: thoughts? answer",
        f"thoughts: opened {json.dumps(BEHIND_THOUGHTS)}",
        f"opened[lazy]: /{'' if is_open else THINK_OPEN}{ANY_TEXT}{_CLOSE}/",
    ]


def before_free(thoughts: Thoughts) -> list[str]:
    """`start`: thoughts, and then `answer`, of which a part is any text. Thoughts may stay without an end."""
    if thoughts is Thoughts.NONE:
        return ["start: answer"]
    is_open = thoughts is Thoughts.OPEN
    begun = ANY_TEXT if is_open else OPENED_LATE
    return [
        f"start: endless | {'opened' if is_open else 'opened?'} answer",
        f"endless: /{begun}/",
        f"opened[lazy]: /{begun}{_CLOSE}/",
    ]
