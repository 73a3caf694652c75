"""What can be wrong with an adapter, a store or a base model. Knows no HTTP: `server.error_table` chooses status codes.

AdapterError
├── AdapterNotFound         no such name, alias or version
├── AdapterNameInvalid      the name breaks the naming rule
├── AdapterInvalid          the files are not a legal adapter
│   ├── AdapterTooLarge     a file is larger than its limit
│   ├── AdapterUnsupported  a legal PEFT adapter of a kind that is not served
│   └── AdapterMismatch     it answers its probes otherwise than where it was made
├── AdapterIncompatible     a legal adapter, made for another base model
├── CanaryInvalid           a name's traffic cannot be split in that way
├── AdapterInUse            the name belongs to something else, or something else stands on it
└── StoreFailure            the store's own files cannot be read or written
    ├── StoreReadOnly       this process may not write to it
    └── AdapterDamaged      a published version no longer has the content of its digest
BaseModelError              the base model cannot be found, prepared or loaded
ChatFormatError             messages cannot be rendered with a chat format
├── ChatTemplateOverrun     its template takes too long or too much memory
└── ChatTemplateBusy        too many templates are being rendered now
"""


class AdapterError(Exception):
    """Anything wrong with an adapter or with the store that holds it."""


class AdapterNotFound(AdapterError):
    """No adapter, alias or version of that name is in the store."""


class AdapterNameInvalid(AdapterError):
    """The name breaks the naming rule."""


class AdapterInvalid(AdapterError):
    """The files are not a legal adapter; `field` names the part at fault."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class AdapterTooLarge(AdapterInvalid):
    """A file of the adapter is larger than its limit."""


class AdapterUnsupported(AdapterInvalid):
    """A legal PEFT adapter of a kind that hotprompt does not serve."""


class AdapterMismatch(AdapterInvalid):
    """An adapter that answers its own probes otherwise than it did where it was made."""


class AdapterIncompatible(AdapterError):
    """A legal adapter that belongs to another base model."""


class CanaryInvalid(AdapterError):
    """A name's traffic cannot be split in that way."""


class AdapterInUse(AdapterError):
    """The name belongs to something else, or an alias stands for it."""


class StoreFailure(AdapterError):
    """The store's own files cannot be read or written."""


class StoreReadOnly(StoreFailure):
    """This process may read the store and not write to it."""


class AdapterDamaged(StoreFailure):
    """A published version no longer has the content of its digest."""


class BaseModelError(Exception):
    """The base model cannot be found, prepared or loaded."""


class ChatFormatError(Exception):
    """The messages cannot be rendered with this chat format."""


class ChatTemplateOverrun(ChatFormatError):
    """A template that came with an adapter was stopped: it takes too long or too much memory."""


class ChatTemplateBusy(ChatFormatError):
    """Too many templates that came with adapters are being rendered at this moment."""
