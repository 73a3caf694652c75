"""Forms into the grammars that llguidance compiles, within limits. Knows no tokenizer, no tools and no thoughts."""

import re
from collections.abc import Iterable

from llguidance.gbnf_to_lark import gbnf_to_lark

from server.text.structure.closing import with_closed_objects
from server.text.structure.errors import StructureInvalid
from server.text.structure.json_schema import SchemaReader, compact, json_text
from server.text.structure.limits import StructureLimits
from server.text.structure.nesting import grammar_depth, outline, regex_depth
from server.text.structure.structures import Choice, Form, Grammar, JsonObject, JsonSchema, Regex

_GBNF_RULE = "::="
_OPTIONS = re.compile(r"\b(max_tokens|temperature|stop|stop_capture)\s*=")
_SPECIAL_TOKEN = re.compile(r"<[^<>\s]+>")
_INSERTED = re.compile(r"%(?:json|regex|lark|llguidance\s*\{\s*\S*[^\s}])|@\S?")


class FormWriter:
    """Writes one grammar for the text of an answer, as an entry of what llguidance reads.

    Raises StructureInvalid for what is over a limit or cannot be enforced. llguidance itself refuses the rest.
    """

    def __init__(self, limits: StructureLimits) -> None:
        self._limits = limits

    def write(self, form: Form, *, unlike: Iterable[str] = ()) -> dict[str, object]:
        """The form, without its texts that begin with a tag in `unlike`.

        JSON begins with no tag. Of a grammar no texts can be taken out: it has to be looked at when it is compiled.
        """
        match form:
            case JsonObject():
                return {"json_schema": compact({"type": "object"})}
            case JsonSchema():
                return {"json_schema": compact(self.schema(form))}
            case Regex():
                return {"lark_grammar": _from_pattern(self._regex(form), unlike)}
            case Choice():
                return {"lark_grammar": _from_pattern(self._choice(form), unlike)}
            case Grammar():
                return {"lark_grammar": self._grammar(form)}

    def schema(self, structure: JsonSchema) -> dict[str, object]:
        """A schema as it is enforced."""
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

    def _check_depth(self, depth: int, field: str) -> None:
        if depth > self._limits.depth:
            raise StructureInvalid(field, f"nests {depth} deep; at most {self._limits.depth} are allowed")


def begins_with(tag: str) -> str:
    """A regular expression, as it stands between slashes, of all texts that begin with a tag."""
    return rf"{_literal(tag)}(?s:.*)"


def _from_pattern(pattern: str, unlike: Iterable[str]) -> str:
    taken_out = "".join(f" & ~/{begins_with(tag)}/" for tag in unlike)
    return f"start: FORM\nFORM: /{pattern}/{taken_out}" if taken_out else f"start: /{pattern}/"


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
