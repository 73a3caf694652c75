"""Sets up logging for a server: one stream, one form, one level. Knows no records."""

import logging
import sys

from server.config import Settings
from server.telemetry.log_lines import JsonLines, TextLines

CHATTY = ("httpx", "httpx2", "uvicorn", "botocore", "urllib3")
"""Told from warnings on only; httpx2 is huggingface_hub's, and would log signed addresses."""


def start_logging(settings: Settings) -> None:
    """Log everything to stderr as the settings say, warnings of Python among it.

    Where something handles the root's records already, whoever runs this program has seen to its log.
    """
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if settings.log_format == "json" else TextLines())
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(capture=True)
