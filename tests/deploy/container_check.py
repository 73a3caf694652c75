"""`make container-check`: the image's own steps, run without Docker, into a fresh directory; then the server they made.

It is started as the image starts it: without capabilities, without a compiler, and in a mount namespace in which all
but the two volumes and a tmpfs for /tmp is read-only. Needs root, or user namespaces.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from server.serve import open_listener
from tests.deploy.dockerfile import ROOT, context_paths, read_dockerfile

PREFIX, DATA = "/opt/hotprompt", "/data"
START_SECONDS = 600
END_SECONDS = 60
KEPT = ("PIP_", "SSL_CERT", "HTTP", "http", "no_proxy", "NO_PROXY")
"""Variables of this process that the build sees: where pip finds packages, and how it gets there."""
READ_ONLY_RUN = """
set -eu
mount --bind "$1/data/models" "$1/data/models"
mount --bind "$1/data/store" "$1/data/store"
mount -t tmpfs -o size=1g,mode=1777 tmpfs "$1/tmp"
mount -o remount,ro,bind /
shift
cd "$TMPDIR"
exec "$@"
"""


def main() -> None:
    variant = "cuda" if torch.version.cuda else "cpu"  # what pip gives here, and so what it will give again
    with tempfile.TemporaryDirectory(prefix="hotprompt-container-") as directory:
        place = Path(directory)
        place.chmod(0o755)
        began = time.monotonic()
        build(place, variant)
        say(f"built ({variant}) in {time.monotonic() - began:.0f} s")
        began = time.monotonic()
        with running(place) as url:
            say(f"answers {ask(url)!r} {time.monotonic() - began:.0f} s after its start")
        say("the image's steps work, and the server that they make needs nothing else")


def build(place: Path, variant: str) -> None:
    """Run the build stage's RUN lines that are ours, over what .dockerignore lets through, with a home of their own."""
    source = place / "source"
    for name in context_paths():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(ROOT / name, source / name)
    kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
    build_arguments = {"VARIANT": variant, "EMBEDDED_BASE": "1", "PYTHON": os.path.realpath(sys.executable)}
    environment = {**kept, **build_arguments, "HOME": str(place / "home"), "PATH": os.environ["PATH"]}
    steps = [step.rest for step in read_dockerfile() if step.stage == "build" and step.word == "RUN"]
    own = [step for step in steps if step.startswith("packaging/")]
    assert own, steps
    for step in own:
        say(step)
        subprocess.run(step.replace(PREFIX, str(place / "prefix")), shell=True, check=True, cwd=source, env=environment)
    shutil.rmtree(source)
    shutil.rmtree(place / "prefix-tools")


@contextmanager
def running(place: Path) -> Iterator[str]:
    """The address of the server, started by ENTRYPOINT with the runtime stage's ENV and found well by HEALTHCHECK."""
    for name in ("models", "store"):
        (place / "data" / name).mkdir(parents=True)
    (place / "tmp").mkdir()
    environment = image_environment(place)
    process = subprocess.Popen(entry_command(place), env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_healthy(environment):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.5)
        yield f"http://127.0.0.1:{environment['HOTPROMPT_PORT']}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_SECONDS) == 0, "SIGTERM is an orderly end"
    finally:
        process.kill()
        process.wait()


def entry_command(place: Path) -> list[str]:
    """ENTRYPOINT without capabilities, in a mount namespace of its own."""
    [entry] = [instruction.command for instruction in read_dockerfile() if instruction.word == "ENTRYPOINT"]
    program = [str(place / "prefix" / "bin" / entry[0]), *entry[1:]]
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    return [*namespace, "sh", "-c", READ_ONLY_RUN, "sh", str(place), *drop, *program]


def image_environment(place: Path) -> dict[str, str]:
    """What ENV sets in the runtime stage, for this place, on a free port of loopback; nothing of this process's."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    for instruction in read_dockerfile():
        if instruction.word == "ENV" and instruction.stage == "runtime":
            environment |= instruction.variables
    environment["PATH"] = environment["PATH"].replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
    for old, new in ((PREFIX, place / "prefix"), (DATA, place / "data")):
        environment = {name: value.replace(old, str(new)) for name, value in environment.items()}
    own = {"HOME": str(place / "tmp"), "TMPDIR": str(place / "tmp"), "CXX": "/nonexistent/c++"}
    return environment | own | {"HOTPROMPT_HOST": "127.0.0.1", "HOTPROMPT_PORT": str(free_port())}


def free_port() -> int:
    with open_listener("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
        return port


def is_healthy(environment: dict[str, str]) -> bool:
    """What HEALTHCHECK says."""
    [check] = [instruction.command for instruction in read_dockerfile() if instruction.word == "HEALTHCHECK"]
    interpreter = shutil.which(check[0], path=environment["PATH"])
    assert interpreter is not None
    return (
        subprocess.run([interpreter, *check[1:]], env=environment, stderr=subprocess.DEVNULL, check=False).returncode
        == 0
    )


def ask(url: str) -> str:
    """The example adapter's answer to a chat."""
    question = "Is this film review positive or negative?\nA warm and funny film."
    body = {"model": "movie-sentiment", "messages": [{"role": "user", "content": question}], "temperature": 0}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: str = json.load(response)["choices"][0]["message"]["content"]
    assert answer == "positive", answer
    return answer


def say(line: str) -> None:
    sys.stdout.write(f"==> {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
