"""What is a source, which ones a server allows, and that none names a host, a port, credentials or a way out."""

import pytest
from pydantic import ValidationError

from server.config import Settings
from server.sources.errors import SourceRefused
from server.sources.locations import AllowedSources, Location, parse_location

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("/srv/adapters//support/", Location("file", ("srv", "adapters", "support"))),
        ("hf://org/repo", Location("hf", ("org", "repo"), "main")),
        (f"hf://org/repo@{COMMIT}", Location("hf", ("org", "repo"), COMMIT)),
        ("hf://org/re.po-1_x@refs/pr/3", Location("hf", ("org", "re.po-1_x"), "refs/pr/3")),
        ("s3://bucket", Location("s3", ("bucket",))),
        ("gs://bucket/a/b@2/", Location("gs", ("bucket", "a", "b@2"))),
        ("az://container/run=3/x", Location("az", ("container", "run=3", "x"))),
    ],
)
def test_a_source_is_read(text: str, location: Location) -> None:
    assert parse_location(text) == location
    assert parse_location(str(location)) == location


HOSTILE = (
    "",
    "support",
    "./support",
    "~/support",
    "http://127.0.0.1/x",
    "https://bucket.s3.amazonaws.com/x",
    "file:///etc/passwd",
    "memory://x",
    "S3://bucket/x",
    "s3:/bucket/x",
    "s3://",
    "s3:///x",
    "s3://b",
    "s3://user:secret@bucket/x",
    "s3://bucket:9000/x",
    "s3://[::1]/x",
    "s3://bucket/../other/x",
    "s3://bucket/a/./b",
    "s3://bucket//a",
    "s3://bucket/a?endpoint=http://x",
    "s3://bucket/a#b",
    "s3://bucket/%2e%2e/x",
    "s3://bucket/a\\..\\b",
    "s3://bucket/a\0b",
    "s3://bucket/a b",
    "s3://bucket/a\nb",
    "s3://bucket/ä",
    "s3://bucket/" + "a" * 256,
    "s3://bucket/" + "a/" * 70 + "a",
    "s3://..",
    "hf://",
    "hf://repo",
    "hf://org/repo/file",
    "hf://org/..",
    "hf://../repo",
    "hf://org/repo@",
    "hf://org/repo@../main",
    "hf://org/repo@a//b",
    "hf://org/repo@main?x=1",
    "hf://org/repo@" + "a" * 256,
    "hf://org%2frepo/x",
    "hf://org.:80/repo",
    "hf://user@host/repo",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_source_is_refused(text: str) -> None:
    with pytest.raises(SourceRefused):
        parse_location(text)


def test_only_what_lies_below_a_prefix_is_allowed() -> None:
    allowed = AllowedSources(("hf://org", "s3://bucket/team/", "gs://other"))
    for text in ("hf://org/a@v1", "s3://bucket/team", "s3://bucket/team/x/y", "gs://other", "gs://other/x"):
        allowed.check(parse_location(text))
    for text in (
        "hf://org2/a",
        "s3://bucket",
        "s3://bucket/teams/x",
        "s3://bucket2/team",
        "gs://bucket/team",
        "az://other",
    ):
        with pytest.raises(SourceRefused, match="--adapter-sources"):
            allowed.check(parse_location(text))
    AllowedSources(("hf://",)).check(parse_location("hf://any/repo"))
    with pytest.raises(SourceRefused, match="names none"):
        AllowedSources(()).check(parse_location("hf://any/repo"))


def test_prefixes_are_settings() -> None:
    text = "hf://, hf://org/, hf://org/repo, s3://bucket, gs://bucket/a/b, az://container/x/"
    assert len(Settings(adapter_sources=text).adapter_sources) == 6  # type: ignore[arg-type]
    for wrong in (
        "",
        "s3://",
        "s3://bucket/..",
        "s3://bucket/../x",
        "s3://a b/c",
        "http://x",
        "/srv",
        "hf://a/b/c",
        "*",
    ):
        with pytest.raises(ValidationError):
            Settings(adapter_sources=wrong)  # type: ignore[arg-type]
