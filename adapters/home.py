"""Where hotprompt keeps its files. Knows nothing of what they hold."""

import os
from pathlib import Path


def home_directory() -> Path:
    """`HOTPROMPT_HOME`, or `~/.local/share/hotprompt`; `models/` and `store/` lie in it."""
    configured = os.environ.get("HOTPROMPT_HOME")
    return Path(configured).expanduser() if configured else Path.home() / ".local" / "share" / "hotprompt"


def default_store() -> Path:
    return home_directory() / "store"
