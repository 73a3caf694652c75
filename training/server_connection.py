"""HTTP to a running server: address, key, and its errors as ours. Knows no route."""

from types import TracebackType
from typing import Any, Self

import httpx

from training.errors import ServerRefused, TrainingError

CONNECT_SECONDS = 5
ANSWER_SECONDS = 600


class ServerConnection:
    """A server at `url`, which may end in /v1; with `api_key` where it asks for one. `flag` named it to the user."""

    def __init__(self, url: str, *, flag: str, api_key: str | None = None) -> None:
        self._where = f"{flag} {url}"
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        try:
            address = url.rstrip("/").removesuffix("/v1")
            self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout)
        except httpx.InvalidURL as error:
            raise TrainingError(f"{self._where}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def ask(self, method: str, path: str, **arguments: Any) -> Any:
        """The body of an answer. Raises TrainingError, with the server's own words where it refuses."""
        try:
            response = self._http.request(method, path, **arguments)
            content = response.json()
        except httpx.RequestError as error:
            raise TrainingError(f"{self._where}: no answer ({error})") from error
        except ValueError:
            raise self.not_ours() from None
        if response.is_error:
            try:
                message = str(content["error"]["message"])
            except (LookupError, TypeError):
                message = f"the server answered {response.status_code}"
            kind = ServerRefused if response.status_code == httpx.codes.BAD_REQUEST else TrainingError
            raise kind(f"{self._where}: {message}")
        return content

    def base_name(self) -> str:
        """The name of the base model. Raises TrainingError."""
        try:
            return next(str(card["id"]) for card in self.ask("GET", "/v1/models")["data"] if card["parent"] is None)
        except (LookupError, TypeError, StopIteration):
            raise self.not_ours() from None

    def not_ours(self) -> TrainingError:
        """The error for an answer that no hotprompt server gives."""
        return TrainingError(f"{self._where}: what answers there is no hotprompt server")
