"""Asks a running server to replay the probes of its adapters. Prints nothing."""

from pydantic import ValidationError

from adapters.naming import check_name
from adapters.verification import Verification
from client.connection import Connection
from client.findings import Findings, Replayed


def verify_remote(connection: Connection, *, name: str | None) -> Findings:
    """What the probes of one adapter say, or of all that the key may use, on the server's engine.

    Raises AdapterNameInvalid, ServerUnreachable, ServerRefused.
    """
    names = _names(connection) if name is None else [check_name(name)]
    return Findings(0, [_replayed(connection, one) for one in names])


def _names(connection: Connection) -> list[str]:
    answer = connection.json("GET", "/v1/adapters")
    try:
        return [check_name(record["id"]) for record in answer["data"]]
    except (LookupError, TypeError):
        raise connection.not_ours() from None


def _replayed(connection: Connection, name: str) -> Replayed:
    record = connection.json("POST", f"/v1/adapters/{name}/verify")
    try:
        return Replayed(f"{name}@{record['digest'][:12]}", Verification.model_validate(record["verification"]))
    except (LookupError, TypeError, ValidationError):
        raise connection.not_ours() from None
