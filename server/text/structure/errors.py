"""What can be wrong with an asked-for structure. Knows no HTTP: status codes are chosen in `server.error_table`.

StructureError
├── StructureInvalid      the structure is malformed, over a limit, or cannot be enforced; `field` names it
├── StructureUnsupported  this model's tokenizer cannot be held to any structure
├── StructureBusy         too many structures are being compiled; come back later
└── StructureFailed       the structure became too complex, or a dead end, while the answer was made (a SequenceFailed)
"""

from server.engine.errors import SequenceFailed
from server.text.errors import FieldRefused, TextError


class StructureError(TextError):
    """Anything wrong with the structure that an answer should have."""


class StructureInvalid(StructureError, FieldRefused):
    """The structure is malformed, over a limit, or cannot be enforced; `field` is the request's field at fault."""


class StructureUnsupported(StructureError):
    """This model's tokenizer cannot be held to any structure."""


class StructureBusy(StructureError):
    """Too many structures are being compiled."""


class StructureFailed(StructureError, SequenceFailed):
    """The structure became too complex, or a dead end, while the answer was made; its words may be told to a client."""
