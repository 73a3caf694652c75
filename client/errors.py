"""What can go wrong between the command line and a server.

ClientError          one line for the user
├── ServerUnreachable   no server answers at the URL
└── ServerRefused       the server answered with an error
"""


class ClientError(Exception):
    """What went wrong, in one line."""


class ServerUnreachable(ClientError):
    """No server answers at the URL."""


class ServerRefused(ClientError):
    """The server answered with an error; the message is the server's, and so is `status`, where the answer had one.

    `retry_after` is in seconds, where the server named it.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
