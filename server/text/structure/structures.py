"""What an answer must look like, as a request asks for it. Knows no grammar and no tokenizer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from adapters.tool_turns import FunctionTool
from server.text.structure.errors import StructureInvalid
from server.text.tools.definitions import ToolChoice, ToolChoiceMode

MAX_PARALLEL_CALLS = 32
"""Calls in one answer: a small model that cannot stop calling is ended here."""


@dataclass(frozen=True, slots=True)
class JsonObject:
    """Any JSON object."""

    field: str = "response_format"


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """JSON that validates against a schema.

    Strict or not, the answer validates. `is_strict` decides on what JSON Schema lets a reader ignore, keywords that it
    does not have and formats that are not enforced: they are refused, or else have no effect.
    """

    schema: Mapping[str, Any]
    is_strict: bool = False
    field: str = "response_format.json_schema.schema"


@dataclass(frozen=True, slots=True)
class Regex:
    """Text that matches a regular expression (Rust's syntax) from its first character to its last."""

    pattern: str
    field: str = "structured_outputs.regex"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these texts."""

    choices: tuple[str, ...]
    field: str = "structured_outputs.choice"


@dataclass(frozen=True, slots=True)
class Grammar:
    """Text of a context-free grammar, written in llguidance's Lark dialect or in GBNF (`root ::= …`)."""

    text: str
    field: str = "structured_outputs.grammar"


Form = JsonObject | JsonSchema | Regex | Choice | Grammar
"""What the text of an answer must look like, from its first character to its last."""


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """Calls of these functions, in the Hermes form, with arguments that validate against their schemas.

    If none is required the answer may be text, or text and then calls; with a `form` it is calls alone, or text of
    this form. Where a call is required there is no text that the form could apply to.
    """

    functions: tuple[FunctionTool, ...]
    is_required: bool
    max_calls: int = MAX_PARALLEL_CALLS
    field: str = "tools"
    form: Form | None = None

    @classmethod
    def asked(
        cls, tools: Sequence[FunctionTool], choice: ToolChoice, *, parallel: bool = True, form: Form | None = None
    ) -> Self | None:
        """What `tools`, `tool_choice`, `parallel_tool_calls` ask for, beside a form; None if nothing may be called.

        Raises StructureInvalid.
        """
        _check_names(tools)
        if choice.name is not None:
            named = tuple(tool for tool in tools if tool.name == choice.name)
            if not named:
                raise StructureInvalid("tool_choice.function.name", "names none of the tools")
            return cls(named, is_required=True, max_calls=1, field=f"tools.{tools.index(named[0])}", form=form)
        if choice.mode is ToolChoiceMode.REQUIRED and not tools:
            raise StructureInvalid("tool_choice", "requires a call, but there are no tools")
        if choice.mode is ToolChoiceMode.NONE or not tools:
            return None
        is_required = choice.mode is ToolChoiceMode.REQUIRED
        return cls(tuple(tools), is_required, MAX_PARALLEL_CALLS if parallel else 1, form=form)

    @property
    def text_form(self) -> Form | None:
        """The form of an answer that calls nothing, where there may be one."""
        return None if self.is_required else self.form

    def field_of(self, index: int) -> str:
        """The request's field with the schema of one of these functions."""
        place = self.field if len(self.functions) == 1 and self.field != "tools" else f"{self.field}.{index}"
        return f"{place}.function.parameters"


Structure = Form | ToolCalls


def is_bound(structure: Structure | None) -> bool:
    """Whether no part of the answer is any text that the model may want to write."""
    if isinstance(structure, ToolCalls):
        return structure.is_required or structure.form is not None
    return structure is not None


def _check_names(tools: Sequence[FunctionTool]) -> None:
    names = [tool.name for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise StructureInvalid(f"tools.{index}.function.name", "is the name of another tool too")
