"""Holds for every test: no network, no settings from the caller's environment, one thread for torch."""

import os
from importlib.util import find_spec

import pytest
import torch
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)
settings.register_profile("hotprompt", deadline=None)  # the cores are shared: a slow example proves nothing
settings.load_profile("hotprompt")

collect_ignore = [] if find_spec("playwright") else ["browser"]  # `make test-browser` installs what they drive


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget every HOTPROMPT_ variable but the home, where the embedded base model lies."""
    for name in list(os.environ):
        if name.startswith("HOTPROMPT_") and name != "HOTPROMPT_HOME":
            monkeypatch.delenv(name)
