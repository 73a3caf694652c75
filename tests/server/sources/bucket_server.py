"""A real S3 server (moto's) on a free port of this machine, and obstore's environment for it. Knows no adapter."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest
from moto.server import ThreadedMotoServer

from adapters.files import AdapterFiles


@dataclass(frozen=True, slots=True)
class BucketServer:
    """Where the server listens, and its buckets."""

    url: str

    def make_bucket(self, name: str) -> None:
        httpx.put(f"{self.url}/{name}").raise_for_status()

    def put(self, path: str, content: bytes) -> None:
        """Write the object at `bucket/key`."""
        httpx.put(f"{self.url}/{path}", content=content).raise_for_status()

    def put_adapter(self, path: str, files: AdapterFiles, **more: bytes) -> None:
        """Write an adapter's files below `bucket/prefix`."""
        contents: Mapping[str, bytes] = files.by_name() | more
        for name, content in contents.items():
            self.put(f"{path}/{name}", content)


@contextmanager
def bucket_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    """Start the server, and let the environment name it, as an operator would; it ends with the block."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-tests")
        httpx.post(f"{url}/moto-api/reset").raise_for_status()
        yield BucketServer(url)
    finally:
        server.stop()
