"""Structures into the grammars that llguidance compiles, within limits. Knows no tokenizer."""

import json
import re

from llguidance.gbnf_to_lark import gbnf_to_lark

from server.text.structure.closing import with_closed_objects
from server.text.structure.errors import StructureInvalid
from server.text.structure.json_schema import SchemaReader, compact, json_text, spaced
from server.text.structure.limits import StructureLimits
from server.text.structure.nesting import grammar_depth, outline, regex_depth
from server.text.structure.structures import Choice, Grammar, JsonObject, JsonSchema, Regex, Structure, ToolCalls
from server.text.tools.definitions import FunctionTool
from server.text.tools.hermes import CALL_CLOSE, CALL_OPEN, CALL_TAIL, call_head

_ANY_TEXT = "/(?s:.*)/"
_GBNF_RULE = "::="
_OPTIONS = re.compile(r"\b(max_tokens|temperature|stop|stop_capture)\s*=")
_SPECIAL_TOKEN = re.compile(r"<[^<>\s]+>")
_INSERTED = re.compile(r"%(?:json|regex|lark|llguidance\s*\{\s*\S*[^\s}])|@\S?")


class GrammarWriter:
    """Writes the grammar of a structure, as the JSON text that llguidance reads.

    Raises StructureInvalid for what is over a limit or cannot be enforced. llguidance itself refuses the rest.
    """

    def __init__(self, limits: StructureLimits) -> None:
        self._limits = limits

    def write(self, structure: Structure) -> str:
        match structure:
            case JsonObject():
                return _from_schema(compact({"type": "object"}))
            case JsonSchema():
                return _from_schema(compact(self._schema(structure)))
            case Regex():
                return _from_lark(f"start: /{self._regex(structure)}/")
            case Choice():
                return _from_lark(f"start: /{self._choice(structure)}/")
            case Grammar():
                return _from_lark(self._grammar(structure))
            case ToolCalls():
                return _from_lark(self._tool_calls(structure))

    def _schema(self, structure: JsonSchema) -> dict[str, object]:
        json_text(structure.schema, structure.field, self._limits.schema_bytes)
        reader = SchemaReader(structure.field, is_strict=structure.is_strict, max_depth=self._limits.depth)
        return with_closed_objects(reader.read(structure.schema))

    def _regex(self, structure: Regex) -> str:
        """The pattern, with its slashes escaped. Anchors at its ends say nothing, since all of the text must match."""
        pattern, field = structure.pattern, structure.field
        _check_size(pattern, field, self._limits.regex_bytes)
        self._check_depth(regex_depth(pattern), field)
        if "\n" in pattern or "\r" in pattern:
            raise StructureInvalid(field, r"has a line break; write it as \n")
        pattern = pattern.removeprefix("^")
        if pattern.endswith("$") and _is_bare(pattern, len(pattern) - 1):
            pattern = pattern[:-1]
        if not pattern:
            raise StructureInvalid(field, "matches the empty text only")
        return "".join(rf"\{c}" if c == "/" and _is_bare(pattern, i) else c for i, c in enumerate(pattern))

    def _choice(self, structure: Choice) -> str:
        choices, field = structure.choices, structure.field
        if not choices or len(choices) > self._limits.choices:
            raise StructureInvalid(field, f"has {len(choices)} entries; 1 to {self._limits.choices} are allowed")
        if "" in choices:
            raise StructureInvalid(f"{field}.{choices.index('')}", "is empty")
        _check_size("".join(choices), field, self._limits.choices_bytes)
        return "|".join(map(_literal, dict.fromkeys(choices)))

    def _grammar(self, structure: Grammar) -> str:
        text, field = structure.text, structure.field
        _check_size(text, field, self._limits.grammar_bytes)
        if _GBNF_RULE in text and not re.search(r"^start\s*:", text, re.MULTILINE):
            text = self._from_gbnf(text, field)
        self._check_depth(grammar_depth(text), field)
        bare = outline(text)
        if found := _OPTIONS.search(bare):
            raise StructureInvalid(field, f"the option {found[1]} has no effect here")
        if found := _SPECIAL_TOKEN.search(bare):
            raise StructureInvalid(field, f"special tokens cannot be written: {found[0][:64]}")
        if found := _INSERTED.search(bare):
            raise StructureInvalid(field, f"{found[0][:64]} has no meaning here")
        return text

    def _from_gbnf(self, text: str, field: str) -> str:
        _check_size(text, field, self._limits.gbnf_bytes, form=" of GBNF")
        num_rules = text.count(_GBNF_RULE)
        if num_rules > self._limits.gbnf_rules:
            raise StructureInvalid(
                field, f"has {num_rules} rules of GBNF; at most {self._limits.gbnf_rules} are allowed"
            )
        try:
            return str(gbnf_to_lark(text))
        except RecursionError:
            raise StructureInvalid(field, "nests too deep") from None
        except Exception as error:  # the converter has no narrower type
            raise StructureInvalid(field, f"is no GBNF: {str(error)[:200]}") from None

    def _tool_calls(self, structure: ToolCalls) -> str:
        """Lark text. An opening tag ends the text before it, and from there on only a call can follow."""
        calls = [self._call(tool, structure.field_of(index)) for index, tool in enumerate(structure.functions)]
        total = sum(map(len, calls))
        if total > self._limits.tools_bytes:
            limit = self._limits.tools_bytes
            raise StructureInvalid(structure.field, f"have {total} bytes of JSON schemas; at most {limit} are allowed")
        first = f"{json.dumps(CALL_OPEN)} call" if structure.is_required else "opening call"
        start = f"{first} more{{0,{structure.max_calls - 1}}}" if structure.max_calls > 1 else first
        rules = [
            f"start: {start}" if structure.is_required else f"start: text | {start}",
            f"more: {json.dumps(chr(10) + CALL_OPEN)} call",
            f'call: "\\n" function {json.dumps(f"{CALL_TAIL}{chr(10)}{CALL_CLOSE}")}',
            f"function: {' | '.join(f'f{index}' for index in range(len(calls)))}",
            *(f"f{index}: {call}" for index, call in enumerate(calls)),
        ]
        if not structure.is_required:
            rules += [f"text: {_ANY_TEXT}", f"opening[lazy]: /(?s:.*){re.escape(CALL_OPEN)}/"]
        return "\n".join(rules)

    def _call(self, tool: FunctionTool, field: str) -> str:
        schema = JsonSchema(tool.parameters or {"type": "object"}, tool.is_strict, field)
        if schema.schema.get("type", "object") != "object":
            raise StructureInvalid(field, "should be the schema of an object (type: object)")
        arguments = spaced({"type": "object"} | self._schema(schema))
        return f"{json.dumps(call_head(tool.name))} %json {json.dumps(arguments)}"

    def _check_depth(self, depth: int, field: str) -> None:
        if depth > self._limits.depth:
            raise StructureInvalid(field, f"nests {depth} deep; at most {self._limits.depth} are allowed")


def _from_schema(schema: dict[str, object]) -> str:
    return json.dumps({"grammars": [{"json_schema": schema}]})


def _from_lark(text: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": text}]})


def _check_size(text: str, field: str, limit: int, form: str = "") -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise StructureInvalid(field, "has half a surrogate pair") from None
    if size > limit:
        raise StructureInvalid(field, f"has {size} bytes{form}; at most {limit} are allowed")


def _is_bare(pattern: str, position: int) -> bool:
    """Whether no backslash makes another thing of the character at `position`."""
    before = pattern[:position]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 0


def _literal(text: str) -> str:
    """A regular expression that matches this text alone."""
    return "".join(c if c.isascii() and c.isalnum() else rf"\x{{{ord(c):X}}}" for c in text)
