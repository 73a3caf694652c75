"""A small hub on a free port of this machine: real files over HTTP, at the addresses and with the headers of the hub.

Weights are answered by a redirection to another host name, as the hub does with large files. Knows no adapter.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from adapters.files import AdapterFiles
from adapters.tensor_file import WEIGHTS_FILE

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass(slots=True)
class Hub:
    """What the hub has, and what it was asked; a closed gate holds back the second half of every content."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By repository, then by name."""
    revisions: tuple[str, ...] = ("main", "v2", COMMIT)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and authorization of each request."""
    gate: threading.Event = field(default_factory=threading.Event)
    sent: dict[str, bytes] = field(default_factory=dict)
    """What is sent in place of a file's content, whatever was said of its size."""

    def put_adapter(self, repo: str, files: AdapterFiles, **more: bytes) -> None:
        self.files[repo] = files.by_name() | more


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        if self.path.startswith("/api/"):  # huggingface_hub asks of itself which programs there are
            self._refuse("EntryNotFound")
            return
        self.hub.asked.append((self.command, self.path, self.headers["authorization"]))
        if self.path.startswith("/large/"):
            _, _, org, repo, name = self.path.split("/")
            self._send(self.hub.files[f"{org}/{repo}"][name], name)
            return
        org, repo, _, revision, name = self.path.strip("/").split("/")
        files = self.hub.files.get(f"{org}/{repo}")
        if files is None:
            self._refuse("RepoNotFound")
        elif revision not in self.hub.revisions:
            self._refuse("RevisionNotFound")
        elif name not in files:
            self._refuse("EntryNotFound")
        elif name == WEIGHTS_FILE:
            self.send_response(302)
            self.send_header("location", f"{self.hub.url.replace('127.0.0.1', 'localhost')}/large/{org}/{repo}/{name}")
            self.send_header("x-linked-size", str(len(files[name])))
            self.send_header("x-linked-etag", '"large"')
            self._end(0)
        else:
            self._send(files[name], name)

    def _send(self, content: bytes, name: str) -> None:
        sent = self.hub.sent.get(name, content)
        self.send_response(200)
        self.send_header("etag", '"small"')
        self._end(len(content) if self.command == "HEAD" else len(sent))
        if self.command == "GET":
            half = len(sent) // 2
            self.wfile.write(sent[:half])
            self.wfile.flush()
            self.hub.gate.wait()
            try:
                self.wfile.write(sent[half:])
            except OSError:
                self.close_connection = True  # whoever asked has hung up

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("x-error-code", code)
        self._end(0)

    def _end(self, num_bytes: int) -> None:
        self.send_header("x-repo-commit", COMMIT)
        self.send_header("content-length", str(num_bytes))
        self.end_headers()


@contextmanager
def small_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Start the hub, and let huggingface_hub ask it as if HF_ENDPOINT had named it; it ends with the block."""
    hub = Hub()
    hub.gate.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="hub")
    thread.start()
    # What HF_ENDPOINT and HF_HUB_OFFLINE say is read when the package is imported.
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    try:
        yield hub
    finally:
        hub.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
