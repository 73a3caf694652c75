"""Tiny base models on the disk, one of each family for the whole session."""

from pathlib import Path

import pytest

from tests.tiny import Family, save_tiny_base


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    """Directories by family. BLOOM has no chat template, as the real one; do not write into them."""
    root = tmp_path_factory.mktemp("bases")
    return {
        "llama": save_tiny_base("llama", root / "tiny-llama"),
        "gpt2": save_tiny_base("gpt2", root / "tiny-gpt2"),
        "bloom": save_tiny_base("bloom", root / "tiny-bloom", chat_template=None),
    }
