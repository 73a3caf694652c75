"""Workplace: what every server is started with: the base model, the number type, the peers, and stores made once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from adapters.base_model import BaseModel
from adapters.store import AdapterStore
from benchmarks.random_adapters import SoftPromptMaker, publish_directories, publish_soft_prompts, write_loras
from benchmarks.servers import Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """A directory for stores and adapters, gone after the measurement, and what the servers have in common."""

    base: BaseModel
    dtype: str
    peers: Path | None
    directory: Path

    def adapter_names(self, server: Server) -> tuple[str, ...]:
        """The names under which a server's adapters are asked for."""
        return tuple(f"adapter-{number:05d}" for number in range(server.adapters))

    def maker(self, virtual_tokens: int) -> SoftPromptMaker:
        return SoftPromptMaker(hidden_size=self.base.identity.hidden_size, virtual_tokens=virtual_tokens)

    def store(self, server: Server) -> Path:
        """The store with a server's adapters, made at the first call; without adapters, a fresh one at each call."""
        if not server.adapters:
            return self.directory / f"store-{uuid4().hex}"
        path = self.directory / f"store-{server.adapters}-{server.lora_modules or server.virtual_tokens}"
        if not path.exists():
            staging = path.with_suffix(".partial")
            store = AdapterStore(staging)
            if server.lora_modules:
                publish_directories(store, self.loras(server))
            else:
                publish_soft_prompts(store, self.maker(server.virtual_tokens), self.adapter_names(server))
            staging.rename(path)
        return path

    def loras(self, server: Server) -> Mapping[str, Path]:
        """The directories of a server's LoRA adapters, by name, made at the first call; the same for every server."""
        assert server.lora_modules, "a server with LoRA adapters says what they change"
        names = self.adapter_names(server)
        directory = self.directory / f"lora-{server.adapters}-{server.lora_modules}"
        if not directory.exists():
            return write_loras(self.base, directory, names, modules=server.lora_modules)
        return {name: directory / name for name in names}
