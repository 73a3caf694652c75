"""Writes docs/openai.md: `python -m tests.conformance.matrix > docs/openai.md`. Knows no server."""

import sys
from collections.abc import Iterator

from tests.conformance.programs import ROOT, program
from tests.conformance.rows import NO, SECTIONS, YES, Row

PAGE = ROOT / "docs" / "openai.md"

_HEAD = """# The OpenAI surface

Programs that speak to OpenAI's API speak to hotprompt by another base URL. [api.md](api.md) has every field with its
limits; this page says what was proved, and by what, beside what other servers have.

`make conformance` starts `hotprompt serve` on the embedded base model and asks it with the packages that people use:
`openai` for Python and for Node, `langchain-openai`, `pydantic-ai`, `instructor`, and the Vercel `ai` SDK with
`@ai-sdk/openai-compatible`, in the versions that `tests/conformance` pins. Each asks the base model and the adapter
`movie-sentiment`. Node itself comes with them; CI runs it.

hotprompt's column is generated from the tests named below: ✓ is honoured, 400 is refused by name. Nothing is accepted
and ignored. No other server was run for this page. `transformers serve`'s column is its installed source, 5.23, read
cell by cell. vLLM's is source and documentation of 0.32; the cells with words, and those of `echo`, unknown fields,
unknown models and keys, were checked again in the installed package. SGLang's (0.5.23) and llama.cpp's (November 2026)
are source and documentation, read once. ✗ not found there, ~ in part, ? not looked up; "batched" is
`--continuous-batching`.
"""

_FOOT = """
This page is made by `python -m tests.conformance.matrix > docs/openai.md`; a test holds it to that.
"""


def page() -> str:
    """The whole page."""
    return "".join([_HEAD, *_tables(), "\n## What proves it\n\n", *_proofs(), _FOOT])


def _tables() -> Iterator[str]:
    for title, rows in SECTIONS:
        yield f"\n## {title}\n\n"
        yield "| | hotprompt | vLLM | SGLang | transformers serve | llama.cpp |\n|---|---|---|---|---|---|\n"
        for row in rows:
            peers = row.peers
            cells = (row.name, ours(row), peers.vllm, peers.sglang, peers.transformers, peers.llama_cpp)
            yield f"| {' | '.join(cells)} |\n"


def ours(row: Row) -> str:
    """hotprompt's cell: what no test proves, it has not."""
    if not row.proofs:
        return NO
    return "400" if row.refused else YES


def _proofs() -> Iterator[str]:
    yield "| | |\n|---|---|\n"
    for _, rows in SECTIONS:
        for row in rows:
            yield f"| {row.name} | {'; '.join(_worded(proof) for proof in row.proofs)} |\n"


def _worded(proof: str) -> str:
    """A proof as a reader looks for it."""
    if "::" in proof:
        path, _, test = proof.partition("::")
        return f"`{path}`: {test.removeprefix('test_').replace('_', ' ')}"
    name, _, feature = proof.partition(": ")
    return f"{program(name).package}: {feature}"


if __name__ == "__main__":
    sys.stdout.write(page())
