"""Sets up logging for a server: one stream, one form, one level. Knows no records."""

import logging
import sys

from server.config import Settings
from server.telemetry.log_lines import JsonLines, TextLines

CHATTY = ("httpx", "httpx2", "uvicorn", "botocore", "urllib3")
"""Told from warnings on only; httpx2 is huggingface_hub's, and would log signed addresses."""


def start_logging(settings: Settings) -> None:
    """Log everything to stderr as the settings say, warnings of Python among it, and nothing in any other way."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if settings.log_format == "json" else TextLines())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)
