"""Keys from settings and key file: what each may use, and every mistake told without the key."""

import hashlib
from pathlib import Path

import pytest

from server.config import SettingsError, load_settings
from server.keys import Caller, Callers, Role, read_callers

SECRET = "sk-secret-of-team-a"


def callers_of(path: Path, content: str, **settings: str) -> Callers:
    path.write_text(content)
    return read_callers(load_settings(key_file=str(path), **settings))


def named(callers: Callers) -> dict[str, Caller]:
    return {caller.name: caller for caller in callers}


def test_each_entry_is_a_caller_with_its_models_and_limits(tmp_path: Path) -> None:
    callers = named(
        callers_of(
            tmp_path / "keys.yaml",
            f"""
            keys:
              - {{name: team-a, key: {SECRET}, models: [movies, prod], requests_per_minute: 5}}
              - {{name: team-b, sha256: {hashlib.sha256(b"other").hexdigest()}, tokens_per_minute: 7}}
            """,
            requests_per_minute="60",
        )
    )
    first, second, anyone = callers["team-a"], callers["team-b"], callers["anyone"]
    assert first.digest == hashlib.sha256(SECRET.encode()).digest()
    assert second.digest == hashlib.sha256(b"other").digest()
    assert [first.may_use(name) for name in ("movies", "prod", "other")] == [True, True, False]
    assert second.may_use("anything")
    assert (first.requests_per_minute, first.tokens_per_minute) == (5, None)
    assert (second.requests_per_minute, second.tokens_per_minute) == (60, 7)
    assert (anyone.role, anyone.requests_per_minute) == (Role.ANYONE, 60)
    assert SECRET not in repr(callers)


def test_admin_keys_have_no_limit_and_an_empty_list_of_models_allows_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTPROMPT_ADMIN_KEYS", "root")
    content = f"keys: [{{name: shut, key: {SECRET}, models: []}}]"
    callers = named(callers_of(tmp_path / "k", content, requests_per_minute="1", tokens_per_minute="1"))
    admin = callers["HOTPROMPT_ADMIN_KEYS[1]"]
    assert (admin.requests_per_minute, admin.tokens_per_minute, admin.may_use("x")) == (None, None, True)
    assert not callers["shut"].may_use("x")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "the file: should be"),
        ("keys: []", "keys: "),
        ("keys: [{name: a}]", "keys.0: give either key or sha256"),
        (f"keys: [{{name: a, key: {SECRET}, sha256: {'ab' * 32}}}]", "keys.0: give either key or sha256"),
        ("keys: [{name: a, key: short}]", "keys.0.key: "),
        ("keys: [{name: a, sha256: xyz}]", "keys.0.sha256: "),
        (f"keys: [{{name: a b, key: {SECRET}}}]", "keys.0.name: "),
        (f"keys: [{{name: a, key: {SECRET}, colour: red}}]", "keys.0.colour: "),
        (f"keys: [{{name: a, key: {SECRET}, requests_per_minute: 0}}]", "keys.0.requests_per_minute: "),
        (f"keys: [{{name: a, key: {SECRET}, models: all}}]", "keys.0.models: "),
        (f"keys: [{{name: a, key: {SECRET}}}, {{name: a, key: {SECRET}2}}]", "two keys are named a"),
        (f"keys: [{{name: a, key: {SECRET}}}, {{name: b, key: {SECRET}}}]", "b and a are the same key"),
        (f"keys: [\n  {{name: a, key: {SECRET}\n]", "is not valid YAML (line "),
        (f"keys: !!python/object/apply:os.system [{SECRET}]", "is not valid YAML (line "),
        ("#" * (1 << 20) + "##", "over the limit"),
    ],
)
def test_a_wrong_file_is_told_by_line_or_field_and_never_by_key(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        callers_of(tmp_path / "keys.yaml", content)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_file_that_cannot_be_read_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^--key-file .*nowhere: No such file"):
        read_callers(load_settings(key_file=str(tmp_path / "nowhere")))


def test_a_key_that_is_also_in_the_environment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPROMPT_API_KEYS", SECRET)
    with pytest.raises(SettingsError, match=r"a and HOTPROMPT_API_KEYS\[1\] are the same key"):
        callers_of(tmp_path / "keys.yaml", f"keys: [{{name: a, key: {SECRET}}}]")
