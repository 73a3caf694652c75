"""Where a trained adapter is registered beside the run's own store: in another, or with a server. Trains nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adapters.files import AdapterFiles
from adapters.store import AdapterStore
from training.server_connection import ServerConnection


class Destination(Protocol):
    """Takes an adapter under a name."""

    def check(self) -> None:
        """Raises before a run begins what can be told by then: TrainingError, AdapterError."""
        ...

    def register(self, name: str, files: AdapterFiles) -> str:
        """What became of the adapter, in one line. Raises TrainingError, AdapterError."""
        ...


@dataclass(frozen=True, slots=True)
class AnotherStore:
    """A store's directory; it is made where there is none."""

    path: Path

    def check(self) -> None:
        AdapterStore(self.path)

    def register(self, name: str, files: AdapterFiles) -> str:
        adapter = AdapterStore(self.path).publish(name, files)
        return f"registered {name} ({adapter.manifest.digest[:12]}) in {self.path}"


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server replays the adapter's probes on its own engine before the name moves to it."""

    url: str
    api_key: str | None

    def check(self) -> None:
        with self._connection() as connection:
            connection.base_name()

    def register(self, name: str, files: AdapterFiles) -> str:
        parts = {file_name: (file_name, content) for file_name, content in files.by_name().items()}
        with self._connection() as connection:
            record = connection.ask("POST", "/v1/adapters", data={"name": name}, files=parts)
            try:
                digest, state = str(record["digest"]), str(record["verification"]["state"])
            except (LookupError, TypeError):
                raise connection.not_ours() from None
        return f"registered {name} ({digest[:12]}) at {self.url}: {state}"

    def _connection(self) -> ServerConnection:
        return ServerConnection(self.url, flag="publish", api_key=self.api_key)


def destination_of(text: str, *, api_key: str | None) -> Destination:
    """What `publish` names: a URL is a server, anything else a directory."""
    if text.startswith(("http://", "https://")):
        return RunningServer(text, api_key)
    return AnotherStore(Path(text).expanduser())
