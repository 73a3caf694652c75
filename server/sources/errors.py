"""What can be wrong with a source. Knows no HTTP: `server.errors` chooses status codes.

SourceError
├── SourceRefused      the server does not fetch from there: no such scheme, not enabled, outside the allow-listed roots
├── SourceUnavailable  the source is allowed, but did not give what was asked for
├── SourceBusy         too many jobs at once
└── JobNotFound        no job of that id
"""


class SourceError(Exception):
    """Anything wrong with a source of adapters."""


class SourceRefused(SourceError):
    """The server does not fetch from there."""


class SourceUnavailable(SourceError):
    """The source is allowed, but did not give what was asked for."""


class SourceBusy(SourceError):
    """Too many jobs at once."""


class JobNotFound(SourceError):
    """No job of that id."""
