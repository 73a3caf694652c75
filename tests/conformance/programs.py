"""The client programs: which there are, where each runs, what its source says that it proves. Runs none."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PYTHON = HERE / ".venv" / "bin" / "python"
PYTHON_OF_INSTRUCTOR = HERE / ".venv-instructor" / "bin" / "python"
NODE = HERE / ".venv" / "bin" / "node"
NODE_MODULES = HERE / "node" / "node_modules"

BASE = "smollm2-135m-instruct"
ADAPTER = "movie-sentiment"

ServerName = Literal["open", "narrow"]

_OPENAI = "openai for Python"
_INSTRUCTOR = "instructor"
_OPENAI_NODE = "openai for Node"
_AI_SDK = "Vercel ai SDK"

_PROVED = re.compile(r'^\s*proved\("([^"]+)"\);?$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Program:
    """A program that asks one server with one package; `package` is its name as its users know it."""

    name: str
    package: str
    server: ServerName = "open"

    @property
    def source(self) -> Path:
        """The program itself: Node's have their suffix in their name, Python's are modules."""
        return HERE / "node" / self.name if self.name.endswith(".mjs") else HERE / "clients" / f"{self.name}.py"

    @property
    def models(self) -> tuple[str, ...]:
        """What a server does with requests is asked once; what a model answers, of the base and of an adapter."""
        return (BASE, ADAPTER) if self.server == "open" else (BASE,)

    @property
    def features(self) -> list[str]:
        """What the program says once it has proved it, in order."""
        return _PROVED.findall(self.source.read_text())

    def command(self, url: str, model: str) -> list[str]:
        if self.name.endswith(".mjs"):
            return [str(NODE), str(self.source), url, model]
        python = PYTHON_OF_INSTRUCTOR if self.package == _INSTRUCTOR else PYTHON
        return [str(python), "-m", f"tests.conformance.clients.{self.name}", url, model]


PROGRAMS = (
    Program("openai_chat", _OPENAI),
    Program("openai_sampling", _OPENAI),
    Program("openai_async", _OPENAI),
    Program("openai_structured", _OPENAI),
    Program("openai_tools", _OPENAI),
    Program("openai_errors", _OPENAI),
    Program("openai_routes", _OPENAI),
    Program("openai_narrow", _OPENAI, "narrow"),
    Program("langchain_chat", "langchain-openai"),
    Program("pydantic_agents", "pydantic-ai"),
    Program("instructor_models", _INSTRUCTOR),
    Program("openai_chat.mjs", _OPENAI_NODE),
    Program("openai_tools.mjs", _OPENAI_NODE),
    Program("openai_narrow.mjs", _OPENAI_NODE, "narrow"),
    Program("ai_sdk.mjs", _AI_SDK),
    Program("ai_sdk_narrow.mjs", _AI_SDK, "narrow"),
)


def program(name: str) -> Program:
    """Raises LookupError for a name that no program has."""
    for candidate in PROGRAMS:
        if candidate.name == name:
            return candidate
    raise LookupError(name)
