"""Shows settings and warnings at the start: a table in a terminal, else lines of the log. Chooses none of them."""

import logging
from collections.abc import Collection

from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.config import Settings
from server.told_settings import ToldSetting, told_settings, unsafe_settings

logger = logging.getLogger(__name__)


def print_start(settings: Settings, flags: Collection[str], console: Console) -> None:
    """Tell `console`, which is stderr's, or the log; `flags` are the fields that flags have set."""
    told = told_settings(settings, flags)
    if console.is_terminal:
        console.print(_table(told))
    else:
        for setting in told:
            logger.info("setting %s: %s (%s)", setting.name, setting.value, setting.source)
    for problem in unsafe_settings(settings):
        logger.warning("unsafe: %s", problem)


def _table(told: list[ToldSetting]) -> Table:
    """What is not a default stands out."""
    table = Table("setting", "value", "from", box=None, header_style="bold", pad_edge=False)
    for setting in told:
        style = "dim" if setting.source == "default" else ""
        table.add_row(*(Text(cell, style) for cell in (setting.name, setting.value, setting.source)))
    return table
