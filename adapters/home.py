"""Where hotprompt keeps its files. Knows nothing of what they hold."""

import os
from pathlib import Path


def home_directory() -> Path:
    """`HOTPROMPT_HOME`, or `~/.local/share/hotprompt`; `models/` and `store/` lie in it."""
    configured = os.environ.get("HOTPROMPT_HOME")
    return Path(configured).expanduser() if configured else Path.home() / ".local" / "share" / "hotprompt"


def default_store() -> Path:
    """`HOTPROMPT_STORE`, which is `hotprompt serve --store` in the environment, or `store/` in the home."""
    configured = os.environ.get("HOTPROMPT_STORE")
    return Path(configured).expanduser() if configured else home_directory() / "store"
