"""docs/openai.md says what the tests prove, and each test that it names is there."""

import ast

import pytest

from tests.conformance.matrix import PAGE, ours, page
from tests.conformance.programs import PROGRAMS, ROOT, program
from tests.conformance.rows import ALL, NO, SECTIONS, Row

ROWS = [row for _, rows in SECTIONS for row in rows]


def test_the_page_is_what_the_generator_writes() -> None:
    assert PAGE.read_text() == page(), "python -m tests.conformance.matrix > docs/openai.md"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_proof_is_there(row: Row) -> None:
    for proof in row.proofs:
        if "::" in proof:
            path, _, test = proof.partition("::")
            assert test in _functions(path), proof
        else:
            name, _, feature = proof.partition(": ")
            assert feature in program(name).features, proof


def _functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_package_proves_something_on_the_page() -> None:
    named = {program(proof.partition(": ")[0]).package for row in ROWS for proof in row.proofs if "::" not in proof}
    assert named == {known.package for known in PROGRAMS}


def test_what_nothing_proves_is_not_claimed() -> None:
    assert ours(Row("`logit_bias`", (), ALL)) == NO
