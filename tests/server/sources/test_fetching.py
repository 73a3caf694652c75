"""Adapters out of a real S3 server and a hub that serves real files: which files, which errors, and what is asked."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from adapters.errors import AdapterInvalid, AdapterTooLarge
from adapters.files import MAX_FILE_BYTES, AdapterFiles
from adapters.tensor_file import WEIGHTS_FILE
from server.sources.buckets import RANGE_BYTES
from server.sources.errors import SourceRefused, SourceUnavailable
from server.sources.fetcher import Fetcher
from server.sources.locations import AllowedSources
from server.sources.parcel import Progress
from server.sources.roots import AdapterRoots
from tests.adapters.making import adapter_files
from tests.server.building import wait_until_async
from tests.server.sources.bucket_server import BucketServer, bucket_server
from tests.server.sources.hub_server import COMMIT, Hub, small_hub
from tests.server.sources.test_roots import write_files


@pytest.fixture(scope="module")
def bucket() -> Iterator[BucketServer]:
    """One server for all tests, which write below paths of their own."""
    with pytest.MonkeyPatch.context() as monkeypatch, bucket_server(monkeypatch) as server:
        server.make_bucket("team")
        yield server


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with small_hub(monkeypatch) as hub:
        yield hub


@pytest.fixture
def fetcher(tmp_path: Path) -> Iterator[Fetcher]:
    allowed = AllowedSources(("hf://org", "s3://team", "gs://team", "az://team"))
    fetcher = Fetcher(AdapterRoots((tmp_path / "root",)), allowed, max_weights_bytes=1 << 28, num_threads=2)
    yield fetcher
    fetcher.close()


async def fetched(fetcher: Fetcher, source: str) -> tuple[AdapterFiles, str, Progress]:
    progress = Progress()
    files, resolved = await fetcher.fetch(fetcher.locate(source), progress)
    return files, str(resolved), progress


async def refused(fetcher: Fetcher, source: str) -> str:
    with pytest.raises(SourceUnavailable) as error:
        await fetched(fetcher, source)
    return str(error.value)


async def test_a_directory_below_a_root(fetcher: Fetcher, tmp_path: Path) -> None:
    files = adapter_files(seed=1)
    path = write_files(tmp_path / "root" / "a", files)
    found, resolved, progress = await fetched(fetcher, str(path))
    assert (found, resolved) == (files, str(path))
    assert progress.fetched_bytes == progress.total_bytes == sum(map(len, files.by_name().values()))
    with pytest.raises(SourceRefused):
        fetcher.locate(str(tmp_path / "elsewhere"))


async def test_a_bucket(fetcher: Fetcher, bucket: BucketServer) -> None:
    files = replace(adapter_files(seed=1, manifest=b"{}"), card=b"# card")
    bucket.put_adapter("team/a/b", files, **{"adapter_model.bin": b"a pickle", "optimizer.pt": b"x"})
    found, resolved, progress = await fetched(fetcher, "s3://team/a/b/")
    assert (found, resolved) == (files, "s3://team/a/b")
    assert progress.fetched_bytes == progress.total_bytes == sum(map(len, files.by_name().values()))
    bucket.put_adapter("team", adapter_files(seed=2))
    assert (await fetched(fetcher, "s3://team"))[0] == adapter_files(seed=2)


async def test_a_file_of_several_ranges_and_an_empty_one(fetcher: Fetcher, bucket: BucketServer) -> None:
    weights = bytes(range(256)) * (RANGE_BYTES // 256 + 100)
    files = AdapterFiles(b"", weights)
    bucket.put_adapter("team/large", files)
    assert (await fetched(fetcher, "s3://team/large"))[0] == files


async def test_what_a_bucket_lacks(fetcher: Fetcher, bucket: BucketServer) -> None:
    for source in ("s3://team/nowhere", "s3://team/a"):
        with pytest.raises(AdapterInvalid, match=r"adapter_config.json: missing"):
            await fetched(fetcher, source)
    bucket.put("team/pickle/adapter_config.json", b"{}")
    bucket.put("team/pickle/adapter_model.bin", b"a pickle")
    with pytest.raises(AdapterInvalid, match="a pickle and is never read"):
        await fetched(fetcher, "s3://team/pickle")


async def test_a_file_over_its_limit_is_not_read(fetcher: Fetcher, bucket: BucketServer) -> None:
    bucket.put_adapter("team/big", adapter_files(seed=1), **{"README.md": bytes(MAX_FILE_BYTES["README.md"] + 1)})
    progress = Progress()
    with pytest.raises(AdapterTooLarge, match=str(MAX_FILE_BYTES["README.md"])) as error:
        await fetcher.fetch(fetcher.locate("s3://team/big"), progress)
    assert (error.value.field, progress.fetched_bytes) == ("README.md", 0)


@pytest.mark.usefixtures("bucket")
async def test_a_store_that_cannot_be_reached_tells_no_address(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
    assert "cannot be reached" in (said := await refused(fetcher, "s3://team/a"))
    assert "127.0.0.1" not in said
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    assert "cannot be reached" in await refused(fetcher, "az://team/a")


async def test_the_hub(fetcher: Fetcher, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    files = replace(adapter_files(seed=1, manifest=b"{}"), card=b"# card")
    hub.put_adapter("org/repo", files, **{"adapter_model.bin": b"a pickle"})
    for source in ("hf://org/repo", "hf://org/repo@v2", f"hf://org/repo@{COMMIT}"):
        found, resolved, progress = await fetched(fetcher, source)
        assert (found, resolved) == (files, f"hf://org/repo@{COMMIT}")
        assert progress.fetched_bytes == progress.total_bytes
    assert {path.split("/")[-1] for _, path, _ in hub.asked} == files.by_name().keys()
    contents = [path for method, path, _ in hub.asked if method == "GET" and "resolve" in path]
    assert all(f"/resolve/{COMMIT}/" in path for path in contents), "what is fetched is of one commit"
    for _, path, authorization in hub.asked:
        assert authorization == (None if path.startswith("/large/") else "Bearer hf_secret"), path


async def test_what_the_hub_lacks(fetcher: Fetcher, hub: Hub) -> None:
    hub.put_adapter("org/repo", adapter_files(seed=1))
    assert "no such repository" in await refused(fetcher, "hf://org/nothing")
    assert "no such revision" in await refused(fetcher, "hf://org/repo@v9")
    hub.files["org/pickle"] = {"adapter_config.json": b"{}", "adapter_model.bin": b"a pickle"}
    with pytest.raises(AdapterInvalid, match="a pickle and is never read"):
        await fetched(fetcher, "hf://org/pickle")
    hub.put_adapter("org/big", adapter_files(seed=1), **{"hotprompt.json": bytes(MAX_FILE_BYTES["hotprompt.json"] + 1)})
    with pytest.raises(AdapterTooLarge, match=r"hotprompt.json: \d+ bytes are over the limit"):
        await fetched(fetcher, "hf://org/big")
    assert not any(method == "GET" for method, _, _ in hub.asked)


async def test_a_hub_that_sends_other_than_it_said(fetcher: Fetcher, hub: Hub) -> None:
    files = adapter_files(seed=1)
    hub.put_adapter("org/repo", files)
    hub.sent[WEIGHTS_FILE] = files.weights + b"x"
    assert "more bytes than it said" in await refused(fetcher, "hf://org/repo")
    hub.sent[WEIGHTS_FILE] = files.weights[:-1]
    assert "ended 1 bytes before" in await refused(fetcher, "hf://org/repo")


async def test_a_hub_that_is_not_asked(fetcher: Fetcher, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in await refused(fetcher, "hf://org/repo")
    with pytest.raises(SourceRefused):
        fetcher.locate("hf://other/repo")
    assert hub.asked == []


async def test_cancelling_ends_a_download(fetcher: Fetcher, hub: Hub) -> None:
    hub.put_adapter("org/repo", adapter_files(seed=1))
    hub.gate.clear()
    progress = Progress()
    task = asyncio.create_task(fetcher.fetch(fetcher.locate("hf://org/repo"), progress))
    await wait_until_async(lambda: progress.fetched_bytes > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
