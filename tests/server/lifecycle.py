"""Adapters' lives over HTTP, step by step at random and with bad input, beside an account of what must be true.

Nothing may be a 500, and each answer is as the OpenAPI document has it and names the version that the account says.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import httpx
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from server.api.answered_by import ADAPTER_HEADER
from tests.server.account import BASE, Account, Change, refusal
from tests.server.answering import CONTENTS, DIGESTS, Ask, Server
from tests.server.building import events_of

NAMES, ALIASES = ("one", "two", "three"), ("prod", "latest")
USERS = (None, "ann", "bob", "carol", "dave")
NO_DIGEST = "0123456789abcdef"


def _names(account: Account) -> st.SearchStrategy[str]:
    """Mostly what there is."""
    there = [*account.names, *account.aliases]
    return st.sampled_from([*(there * 6), *NAMES, *ALIASES, "nobody"])


def _prefixes(account: Account, name: str) -> st.SearchStrategy[str]:
    """How versions are called: mostly those that a name has beside its current one."""
    own = account.names.get(account.aliases.get(name, name))
    others = [digest for digest in own.versions if digest != own.current] if own else []
    digests = [*(others * 6), *DIGESTS, NO_DIGEST]
    return st.builds(lambda digest, length: digest[:length], st.sampled_from(digests), st.sampled_from([6, 12, 64]))


def _references(account: Account) -> st.SearchStrategy[str]:
    """What `model` may say: names and aliases, known or not, versions that there are and are not, and nonsense."""
    names = _names(account)
    versions = names.flatmap(lambda name: _prefixes(account, name).map(lambda prefix: f"{name}@{prefix}"))
    return st.one_of(names, names, versions, names.map(lambda name: f"{BASE}:{name}"), st.sampled_from(ODD_REFERENCES))


def _changes(account: Account, name: str) -> st.SearchStrategy[Change]:
    prefixes = _prefixes(account, name)
    canary = st.fixed_dictionaries({"digest": prefixes, "percent": st.integers(1, 99)})
    fields: dict[str, st.SearchStrategy[Any]] = {
        "rollback": st.one_of(st.sampled_from([True]), prefixes),
        "pinned": st.booleans(),
        "alias": st.sampled_from([*ALIASES, *ALIASES, *NAMES]),
        "canary": st.one_of(st.none(), canary, canary),
    }
    alone = [st.fixed_dictionaries({name: value}) for name, value in fields.items()]
    return st.one_of(*alone, *alone, st.fixed_dictionaries({}, optional=fields).filter(bool))


ODD_REFERENCES = (BASE, BASE, "nobody", "one@", "one@zzzzzz", "one@one@one", "@", "bad name!", "../one", "ö")
BAD_CHANGES: tuple[Any, ...] = (
    {},
    [],
    {"rollback": False},
    {"rollback": "zz"},
    {"rollback": 7},
    {"pinned": "yes"},
    {"alias": "bad name!"},
    {"alias": BASE},
    {"alias": ""},
    {"canary": {"digest": DIGESTS[0], "percent": 0}},
    {"canary": {"digest": DIGESTS[0], "percent": 100}},
    {"canary": {"percent": 5}},
    {"nonsense": 1},
)
BAD_ASKS: tuple[dict[str, Any], ...] = (
    {"temperature": 9},
    {"max_tokens": 0},
    {"max_tokens": 1 << 40},
    {"n": 0},
    {"stop": ["a"] * 5},
    {"logit_bias": {"a": 1}},
    {"nonsense": 1},
    {"model": ""},
    {"model": None},
)
PROMPTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
    "/v1/completions": {"prompt": "hello"},
}
KINDS: tuple[Ask, ...] = ("chat", "chat", "chat stream", "completion", "responses", "embeddings", "card")
BAD_NAMES = (BASE, "bad name!", "", "a" * 64, "one@abcdef", "../one")
BAD_BODIES = (b"", b"{", b"[]", b"null", b"\xff", b'{"model": "\\ud800"}', b"[" * 2000, b'{"a": NaN}', b'"one"')
BAD_FILES: tuple[dict[str, bytes | None], ...] = (
    {"adapter_config.json": None},
    {"adapter_config.json": b"{}"},
    {"adapter_config.json": b"[" * 5000},
    {"adapter_model.safetensors": None},
    {"adapter_model.safetensors": b"\x00" * 30},
    {"hotprompt.json": b"no JSON"},
    {"evil.py": b"print()"},
)


class Lifecycle(RuleBasedStateMachine):
    """One story. The server may have had others before, but none of their names is left."""

    server: ClassVar[Server]

    def __init__(self) -> None:
        super().__init__()
        self._account = Account()

    # -- what changes names -----------------------------------------------------------------------------------------

    @initialize(contents=st.permutations(range(len(CONTENTS))), num_versions=st.integers(1, 4))
    def begin(self, contents: list[int], num_versions: int) -> None:
        for content in contents[:num_versions]:
            self.upload("one", content)
        self.upload("two", contents[0])
        self._change("one", {"alias": ALIASES[0]})

    @rule(name=st.sampled_from([*NAMES, *NAMES, *NAMES, *ALIASES]), content=st.integers(0, len(CONTENTS) - 1))
    def upload(self, name: str, content: int) -> None:
        response = self.server.upload(name, CONTENTS[content])
        if self._is_done(response, lambda: self._account.publish(name, DIGESTS[content]), 201):
            assert response.headers["location"] == f"/v1/adapters/{name}"
            self._require_described(response.json(), name)
        self._look_at(name)

    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        name = data.draw(_names(self._account))
        self._change(name, data.draw(_changes(self._account, name)))

    @rule(data=st.data(), percents=st.lists(st.integers(1, 99), min_size=1, max_size=3))
    def split(self, data: st.DataObject, percents: list[int]) -> None:
        """A canary that grows and shrinks while the same people ask."""
        for percent in percents:
            name = data.draw(st.sampled_from([*self._account.names, "nobody"]))
            self._change(name, {"canary": {"digest": data.draw(_prefixes(self._account, name)), "percent": percent}})
            for user in USERS:
                self._ask("chat", name, user)

    @precondition(lambda self: len(self._account.names) > 1)
    @rule(data=st.data(), template=st.sampled_from(["/v1/adapters/{name}", "/v1/models/{model}"]))
    def delete(self, data: st.DataObject, template: str) -> None:
        self._delete(data.draw(_names(self._account)), template)

    @rule(data=st.data())
    def verify(self, data: st.DataObject) -> None:
        name = data.draw(_names(self._account))
        response = self.server.call("POST", "/v1/adapters/{name}/verify", path=name)
        if self._is_done(response, lambda: self._account.own_name(name), 200):
            self._require_described(response.json(), name)

    # -- what asks --------------------------------------------------------------------------------------------------

    @rule(data=st.data(), kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=6))
    def ask(self, data: st.DataObject, kinds: list[Ask]) -> None:
        for kind in kinds:
            self._ask(kind, data.draw(_references(self._account)), data.draw(st.sampled_from(USERS)))

    @rule()
    def list_everything(self) -> None:
        cards = self.server.call("GET", "/v1/models").json()["data"]
        roots = {name: said.current for name, said in self._account.names.items()}
        roots |= {alias: self._account.names[name].current for alias, name in self._account.aliases.items()}
        assert {card["id"]: card["root"] for card in cards} == {BASE: BASE, **roots}
        records = self.server.call("GET", "/v1/adapters").json()["data"]
        assert [record["id"] for record in records] == sorted(self._account.names)
        for record in records:
            self._require_described(record, record["id"])

    # -- what is wrong ----------------------------------------------------------------------------------------------

    @rule(
        data=st.data(),
        change=st.sampled_from(BAD_CHANGES),
        content=st.integers(0, len(CONTENTS) - 1),
        files=st.sampled_from(BAD_FILES),
        bad_name=st.sampled_from(BAD_NAMES),
    )
    def change_badly(
        self,
        data: st.DataObject,
        change: Any,
        content: int,
        files: dict[str, bytes | None],
        bad_name: str,
    ) -> None:
        name = data.draw(_names(self._account))
        response = self.server.call("PATCH", "/v1/adapters/{name}", path=name, json=change)
        assert response.status_code in {400, 404}, response.text
        changed = {**CONTENTS[content].by_name(), **files}
        parts = {file_name: (file_name, sent) for file_name, sent in changed.items() if sent is not None}
        response = self.server.call("POST", "/v1/adapters", data={"name": name}, files=parts)
        assert response.status_code == 400, response.text
        assert self.server.upload(bad_name, CONTENTS[content]).status_code == 400
        if bad_name:
            for template in ("/v1/adapters/{name}", "/v1/models/{model}"):
                assert self.server.call("DELETE", template, path=bad_name).status_code in {400, 404}
        self._look_at(name)

    @rule(data=st.data(), wrong=st.sampled_from(BAD_ASKS), body=st.sampled_from(BAD_BODIES))
    def ask_badly(self, data: st.DataObject, wrong: dict[str, Any], body: bytes) -> None:
        model = data.draw(_names(self._account))
        for path, prompt in PROMPTS.items():
            response = self.server.call("POST", path, json={"model": model, **prompt, **wrong})
            assert response.status_code == 400, response.text
            response = self.server.call("POST", path, content=body, headers={"content-type": "application/json"})
            assert response.status_code == 400, response.text

    # -- private ----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Everything is as it was told, and can be removed: aliases first, for a name that has some stays."""
        self.list_everything()
        for name in [*self._account.aliases, *self._account.names]:
            self._delete(name, "/v1/adapters/{name}")
        self.list_everything()

    def _change(self, name: str, change: Change) -> None:
        response = self.server.call("PATCH", "/v1/adapters/{name}", path=name, json=change)
        if self._is_done(response, lambda: self._account.change(name, change), 200):
            self._require_described(response.json(), name)
        self._look_at(name)

    def _delete(self, name: str, template: str) -> None:
        was_pinned = name in self._account.names and self._account.names[name].is_pinned
        response = self.server.call("DELETE", template, path=name)
        if self._is_done(response, lambda: self._account.remove(name), 200):
            removed = response.json()
            assert (removed["id"], removed["deleted"], removed["was_pinned"]) == (name, True, was_pinned)
        self._look_at(name)

    def _ask(self, kind: Ask, model: str, user: str | None) -> None:
        user = user if kind in {"chat", "chat stream", "completion"} else None
        response = self.server.ask(kind, model, user)
        if (status := refusal(lambda: self._account.answers(model, user))) is not None:
            assert response.status_code == status, response.text
            assert response.json()["error"]["code"] == "model_not_found"
            assert ADAPTER_HEADER not in response.headers
            return
        assert response.status_code == 200, response.text
        expected = self._account.answers(model, user)
        if kind != "card":
            self._require_version(response, expected, user, kind)
        elif expected is None:
            assert response.json()["root"] == BASE
        else:
            own, versions = expected
            assert response.json()["root"] == (
                next(iter(versions)) if "@" in model else self._account.names[own].current
            )

    def _is_done(self, response: httpx.Response, change: Callable[[], object], status: int) -> bool:
        """Whether a change was made, as the account has it."""
        if (refused := refusal(change)) is not None:
            assert response.status_code == refused, response.text
            return False
        assert response.status_code == status, response.text
        return True

    def _look_at(self, name: str) -> None:
        response = self.server.call("GET", "/v1/adapters/{name}", path=name)
        if self._is_done(response, lambda: self._account.own_name(name), 200):
            self._require_described(response.json(), name)

    def _require_described(self, record: Mapping[str, Any], written: str) -> None:
        own = self._account.own_name(written)
        said = self._account.names[own]
        assert record["id"] == own
        assert record["digest"] == said.current
        assert tuple(version["digest"] for version in record["versions"]) == said.versions
        assert record["pinned"] is said.is_pinned
        assert sorted(record["aliases"]) == sorted(
            alias for alias, name in self._account.aliases.items() if name == own
        )
        split = None if said.split is None else {"digest": said.split.digest, "percent": said.split.percent}
        assert record["canary"] == split
        assert record["running"] == 0
        assert record["resident"] or not said.is_pinned

    def _require_version(
        self,
        response: httpx.Response,
        expected: tuple[str, Mapping[str, bool | None]] | None,
        user: str | None,
        kind: Ask,
    ) -> None:
        """The answer names a version that may answer; the same content always says the same."""
        told = response.headers.get(ADAPTER_HEADER)
        if expected is None:
            digest = None
            assert told is None
        else:
            own, versions = expected
            name, _, digest = told.partition("@")
            assert (name, digest in versions) == (own, True), f"{told} is none of {own}: {versions}"
            is_canary = versions[digest]
            if is_canary is not None:
                self.server.tally.by_canary[is_canary] = self.server.tally.by_canary.get(is_canary, 0) + 1
                if user is not None:
                    self._account.saw(own, user, is_canary=is_canary)
            self.server.tally.by_digest[digest] = self.server.tally.by_digest.get(digest, 0) + 1
        if kind == "chat":
            assert response.json()["choices"][0]["message"]["content"] == self.server.texts[digest]
        if kind == "chat stream":
            events = events_of(response.text)
            assert events[-1] == "[DONE]"
            pieces = [choice["delta"].get("content") or "" for event in events[:-1] for choice in event["choices"]]
            assert "".join(pieces) == self.server.texts[digest]
