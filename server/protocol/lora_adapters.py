"""vLLM's bodies that load and unload an adapter while the server runs. Knows no route."""

from pydantic import Field

from server.protocol.base import RequestBody

Name = Field(min_length=1, max_length=63)


class LoadLoraAdapter(RequestBody):
    """`lora_path` is a directory on the server's own disk, below one of --adapter-roots."""

    lora_name: str = Name
    lora_path: str = Field(min_length=1, max_length=4096)
    load_inplace: bool | None = None
    """true: a name that exists gets a new version; else it is refused."""


class UnloadLoraAdapter(RequestBody):
    lora_name: str = Name
    lora_int_id: None = None
    """Adapters have no numbers here."""
