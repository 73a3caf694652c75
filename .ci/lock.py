"""Prints requirements.lock: exact pins of everything that pyproject.toml, with its extras train and dev, needs here.

Run it as `make lock` in an environment where the newest wanted versions work. Local versions (+cpu) are left out, so
that the lock fits machines with CUDA and without.
"""

import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BUILD_NEEDS = ("hatchling",)
"""What installing the project itself needs: it is built without an environment of its own."""

CUDA_ONLY = ("nvidia-", "triton", "cuda-")
"""Come with torch's CUDA builds, in versions that torch itself pins."""


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["train"], *extras["dev"], *BUILD_NEEDS]
    pins: dict[str, str] = {}
    for requirement in wanted:
        _collect(Requirement(requirement), pins)
    sys.stdout.write("# Made by `make lock`. Exact versions of everything that hotprompt and its tests need.\n")
    for name in sorted(pins):
        sys.stdout.write(f"{name}=={pins[name]}\n")


def _collect(requirement: Requirement, pins: dict[str, str]) -> None:
    name = canonicalize_name(requirement.name)
    extras = requirement.extras or {""}
    if name.startswith(CUDA_ONLY):
        return
    installed = distribution(name)
    known = name in pins
    pins[name] = installed.version.partition("+")[0]
    if known and not requirement.extras:
        return
    for line in installed.requires or []:
        needed = Requirement(line)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            _collect(needed, pins)


if __name__ == "__main__":
    main()
