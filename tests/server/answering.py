"""A server under test, of which every answer is held against the OpenAPI document. Knows no account of it."""

from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

import httpx
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

from adapters.files import AdapterFiles
from adapters.weights import read_adapter
from tests.server.account import BASE
from tests.server.building import multipart, soft_prompt_files

CONTENTS: tuple[AdapterFiles, ...] = tuple(
    soft_prompt_files(seed, num_virtual_tokens=20 if seed % 2 else 5) for seed in range(5)
)
DIGESTS = tuple(read_adapter("any", files).manifest.digest for files in CONTENTS)

Ask = Literal["chat", "chat stream", "completion", "responses", "embeddings", "card"]


class Document:
    """The OpenAPI document, which says what an answer may be."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._validators: dict[tuple[str, str, int], Validator] = {}

    def check(self, template: str, response: httpx.Response) -> None:
        method, status = response.request.method, response.status_code
        said = self._document["paths"][template][method.lower()]["responses"]
        assert str(status) in said, f"{method} {template} never answers {status}: {response.text}"
        media = response.headers["content-type"].partition(";")[0]
        content = self._resolved(said[str(status)])["content"]
        assert media in content, f"{method} {template} {status} is never {media}"
        if media == "application/json":
            key = (template, method, status)
            if key not in self._validators:
                schema = {**content[media]["schema"], "components": self._document["components"]}
                self._validators[key] = Draft202012Validator(schema)
            self._validators[key].validate(response.json())

    def _resolved(self, part: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in part:
            return part
        found: Any = self._document
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return dict(found)


@dataclass(slots=True)
class Tally:
    """What a run did, so that a test can see that it did something."""

    by_status: dict[int, int] = field(default_factory=dict)
    by_digest: dict[str, int] = field(default_factory=dict)
    by_canary: dict[bool, int] = field(default_factory=dict)
    """Answers of names that have one: whether it was the canary's."""


class Server:
    """A server under test: every answer is looked at, and one of the server's own faults is a failure."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._document = Document(client.get("/openapi.json").json())
        self.tally = Tally()
        self.texts: dict[str | None, str] = {}

    def call(self, method: str, template: str, *, path: str = "", **fields: Any) -> httpx.Response:
        """`path` stands in the template's place for it."""
        filled = template[: template.find("{")] + quote(path, safe="") if "{" in template else template
        filled += template[template.find("}") + 1 :] if "{" in template else ""
        response = self._client.request(method, filled, **fields)
        assert response.status_code < 500, f"{method} {filled} {fields!r:.300}: {response.text}"
        self._document.check(template, response)
        self.tally.by_status[response.status_code] = self.tally.by_status.get(response.status_code, 0) + 1
        return response

    def upload(self, name: str, files: AdapterFiles) -> httpx.Response:
        return self.call("POST", "/v1/adapters", data={"name": name}, files=multipart(files))

    def learn(self) -> None:
        """What the base and each content say, each under a name of its own."""
        self.texts[None] = self.text(BASE)
        for number, files in enumerate(CONTENTS):
            assert self.upload(f"content-{number}", files).json()["digest"] == DIGESTS[number]
            self.texts[DIGESTS[number]] = self.text(f"content-{number}")
            self.call("DELETE", "/v1/adapters/{name}", path=f"content-{number}")
        assert len(set(self.texts.values())) == len(self.texts)

    def text(self, model: str) -> str:
        told: str = self.ask("chat", model, None).json()["choices"][0]["message"]["content"]
        return told

    def ask(self, kind: Ask, model: str, user: str | None) -> httpx.Response:
        """A short question, in one of the forms that there are."""
        if kind == "card":
            return self.call("GET", "/v1/models/{model}", path=model)
        said: dict[str, Any] = {} if user is None else {"user": user}
        chat: dict[str, Any] = {
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 12,
            "temperature": 0,
        }
        forms: dict[str, tuple[str, dict[str, Any]]] = {
            "chat": ("/v1/chat/completions", chat),
            "chat stream": ("/v1/chat/completions", chat | {"stream": True}),
            "completion": ("/v1/completions", {"prompt": "hello", "max_tokens": 2, "echo": True, "logprobs": 1}),
            "responses": ("/v1/responses", {"input": "hello", "max_output_tokens": 2}),
            "embeddings": ("/v1/embeddings", {"input": "hello"}),
        }
        path, body = forms[kind]
        return self.call("POST", path, json={"model": model, **body, **said})
