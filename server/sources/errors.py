"""What can be wrong with a source. Knows no HTTP: `server.error_table` chooses status codes.

SourceError
├── SourceRefused      the server does not read there: no setting allows it, or it is no legal source
└── SourceUnavailable  the source is allowed, but did not give what was asked for
"""


class SourceError(Exception):
    """Anything wrong with a source of adapters."""


class SourceRefused(SourceError):
    """The server does not read there."""


class SourceUnavailable(SourceError):
    """The source is allowed, but did not give what was asked for."""
