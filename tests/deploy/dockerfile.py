"""Reads the Dockerfile and .dockerignore as far as this project's go. Runs nothing."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, on one line; `stage` is the name of the stage that it stands in."""

    stage: str
    word: str
    rest: str

    @property
    def command(self) -> list[str]:
        """The words of an instruction in JSON form, such as ENTRYPOINT ["a", "b"]; HEALTHCHECK's flags are left out."""
        words: list[str] = json.loads(self.rest[self.rest.index("[") :])
        return words

    @property
    def variables(self) -> dict[str, str]:
        """What ENV sets."""
        return dict(pair.split("=", 1) for pair in shlex.split(self.rest))


def read_dockerfile(path: Path = ROOT / "Dockerfile") -> list[Instruction]:
    """The instructions, without comments, continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    stage = ""
    found = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stage = rest.partition(" AS ")[2]
        found.append(Instruction(stage, word, rest))
    return found


def context_paths(path: Path = ROOT / ".dockerignore") -> list[str]:
    """What goes to the builder: .dockerignore leaves out everything but the paths that it names with an `!`."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*", "everything is left out at first"
    return [line[1:] for line in lines if line.startswith("!")]
