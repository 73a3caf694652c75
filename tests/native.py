"""The native decoder for tests that need it: compiled, or the test is skipped where this machine cannot have it."""

from pathlib import Path

import pytest

from server.engine.errors import NativeUnavailable
from server.engine.native.library import load_library


def require_native(directory: Path) -> Path:
    """The directory, with the compiled library in it; skips the test, with the reason, without CPU or compiler."""
    try:
        load_library(directory)
    except NativeUnavailable as error:
        pytest.skip(f"no native decoder here: {error}")
    return directory
