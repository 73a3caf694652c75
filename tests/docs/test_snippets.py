"""bash, python and javascript blocks run as they are printed, page by page and in order, against one server.

Only the server's address is another than the printed one, so that a busy port fails nothing.
"""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.programs import ADAPTER, NODE, NODE_MODULES
from tests.conformance.serving import environment, make_store, serving
from tests.docs.pages import PAGES, ROOT, Block, blocks_of

PRINTED = "http://127.0.0.1:8000"
LIMIT_SECONDS = 300
RUN = ("bash", "python", "javascript")

SAYS = {
    "README.md": ['"content":"positive"', "Paris", "router"],
    "quickstart.md": ["Paris", '"content":"negative"', "Paris", "Paris", "router", "verified"],
}
"""What a page's blocks must have said, in order."""

RUNNING = [page for page in PAGES if any(block.language in RUN for block in blocks_of(page))]


@dataclass(frozen=True, slots=True)
class Workplace:
    """A directory where a reader might be, and a server; `environment` has hotprompt, python and curl on its path."""

    directory: Path
    url: str
    environment: dict[str, str]

    def run(self, block: Block) -> str:
        """What a block writes to stdout. Raises AssertionError if it fails."""
        code = block.text.replace(PRINTED, self.url)
        match block.language:
            case "bash":
                command = ["bash", "-euo", "pipefail", "-c", code]
            case "python":
                command = [sys.executable, "-c", code]
            case _:
                (self.directory / "snippet.mjs").write_text(code)
                command = [str(NODE), "snippet.mjs"]
        run = subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert run.returncode == 0, f"{block.where}\n{run.stdout}\n{run.stderr}"
        return run.stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("docs") / "store"
    make_store(store)
    return store


@pytest.fixture(scope="module")
def url(store: Path) -> Iterator[str]:
    with serving(store, store.parent / "server.log") as address:
        yield address


@pytest.fixture
def workplace(url: str, store: Path, tmp_path: Path) -> Workplace:
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    _program(programs / "hotprompt", f'PYTHONPATH={ROOT} exec {sys.executable} -m hotprompt "$@"')
    _program(programs / "python", f'exec {sys.executable} "$@"')
    _program(programs / "curl", f'exec {shutil.which("curl")} --fail-with-body "$@"')  # an error is a failure here
    os.symlink(ROOT / "examples", tmp_path / "examples")
    os.symlink(NODE_MODULES, tmp_path / "node_modules")
    for file in (ROOT / "examples" / "adapters" / ADAPTER).iterdir():
        shutil.copy(file, tmp_path / file.name)
    rows = (ROOT / "examples" / "training" / "library_mail.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_text("".join(rows[::5]))
    (tmp_path / "held_out.jsonl").write_text("".join(rows[1::20]))
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return Workplace(tmp_path, url, dict(environment(PATH=path, PYTHONPATH=str(ROOT), HOTPROMPT_STORE=str(store))))


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.name)
def test_snippets_run(page: Path, workplace: Workplace) -> None:
    assert not any(block.language == "javascript" for block in blocks_of(page)) or NODE.exists(), "`make clients`"
    said = "".join(workplace.run(block) for block in blocks_of(page) if block.language in RUN)
    for words in SAYS.get(page.name, ()):
        assert words in said
        said = said.partition(words)[2]
