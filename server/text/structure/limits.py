"""How large, deep, slow and many structures may be. Knows no grammar."""

from dataclasses import dataclass

KIBIBYTE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureLimits:
    """Bounds on what clients may ask for. Bytes are of UTF-8; a schema's are of its compact JSON."""

    schema_bytes: int = 64 * KIBIBYTE
    """Of one JSON schema."""
    tools_bytes: int = 256 * KIBIBYTE
    """Of the schemas of one request's functions together."""
    regex_bytes: int = 4 * KIBIBYTE
    grammar_bytes: int = 64 * KIBIBYTE
    gbnf_bytes: int = 8 * KIBIBYTE
    gbnf_rules: int = 64
    """GBNF is turned into Lark by a converter whose time grows with the square of these."""
    choices: int = 256
    choices_bytes: int = 64 * KIBIBYTE
    """Of all choices together."""
    depth: int = 32
    """How deep braces, brackets, groups and subschemas may nest."""
    compile_seconds: float = 0.25
    """Of wall time for trying a structure out; half of it may be computing."""
    compile_tools_seconds: float = 1.0
    """The same for calls of functions: a request may have more than a hundred of them, each with a schema."""
    wait_seconds: float = 5.0
    """For a worker, before the structure is refused because others are being compiled."""
    workers: int = 2
    cache_bytes: int = 64 * KIBIBYTE * KIBIBYTE
    """Of compiled grammars kept for requests to come, as estimated from their sizes."""
