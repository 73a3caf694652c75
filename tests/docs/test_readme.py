"""README and docs: every link leads somewhere, and README's snippets run as they are printed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
URL = "http://127.0.0.1:8000"
EXAMPLE = ROOT / "examples" / "adapters" / "movie-sentiment"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def _snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def _run(command: list[str], directory: Path) -> str:
    run = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The store of a server on the embedded base, at the address that README names, with the example adapter."""
    store = tmp_path_factory.mktemp("readme") / "store"
    hotprompt = [sys.executable, "-m", "hotprompt"]
    _run([*hotprompt, "adapters", "add", EXAMPLE.name, str(EXAMPLE), "--store", str(store)], ROOT)
    with subprocess.Popen([*hotprompt, "serve", "--store", str(store)], cwd=ROOT) as process:
        deadline = time.monotonic() + 180
        while not _is_ready():
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.2)
        yield store
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def _is_ready() -> bool:
    try:
        return httpx.get(f"{URL}/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_readme_snippets_run(store: Path, tmp_path: Path) -> None:
    curl, train = _snippets("bash")
    [python] = _snippets("python")
    assert '"content":"positive"' in _run(["bash", "-euc", curl], tmp_path)
    (tmp_path / "snippet.py").write_text(python)
    assert "Paris" in _run([sys.executable, "snippet.py"], tmp_path)
    training = train.replace(".venv/bin/hotprompt", f"{sys.executable} -m hotprompt") + f" --store {store}"
    os.symlink(ROOT / "hotprompt.py", tmp_path / "hotprompt.py")
    assert "router" in _run(["bash", "-euc", training.replace("\n --store", " --store")], tmp_path)
    body = {"model": "router", "messages": [{"role": "user", "content": "Which team answers this?\nRefund me."}]}
    answer = httpx.post(f"{URL}/v1/chat/completions", json=body | {"max_tokens": 5}, timeout=60)
    assert answer.status_code == 200, answer.text
