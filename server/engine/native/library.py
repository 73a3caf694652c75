"""Compiles decoder.cpp once, and loads it where the CPU can run it. Knows no models."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch  # loads the OpenMP runtime that the compiled library shares

from server.engine.errors import NativeUnavailable

_SOURCE = Path(__file__).with_name("decoder.cpp")
_HEADERS = tuple(_SOURCE.with_name(name) for name in ("deltas.h", "numbers.h"))
_CPU_FEATURES = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_bf16", "avx512_vnni", "fma"}
_FLAGS = ("-O3", "-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni", "-std=c++17", "-fopenmp", "-shared", "-fPIC")
"""Exactly those features, and not the ones of the CPU that compiles: the library runs on every CPU that has them."""
_COMPILE_SECONDS = 300


def load_library(cache: Path) -> ctypes.CDLL:
    """The library: compiled beside its source when the package was installed, or in the directory `cache`.

    It is compiled into `cache` when it is in neither (some seconds).
    Raises NativeUnavailable, with the reason, where the CPU or a compiler is missing, or the compiler fails.
    """
    missing = sorted(_CPU_FEATURES - _cpu_features())
    if missing:
        raise NativeUnavailable(f"the CPU has no {', '.join(missing)}")
    assert torch.get_num_threads() > 0, "torch, and with it the OpenMP runtime, is loaded"
    path = _SOURCE.with_name(_library_name())
    if not path.exists():
        path = compile_library(cache)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeUnavailable(f"{path} cannot be loaded: {error}") from error


def compile_library(directory: Path) -> Path:
    """The library in a directory, compiled into it when it is not there; the CPU that compiles need not run it.

    Raises NativeUnavailable where there is no compiler, or it fails.
    """
    path = directory / _library_name()
    if not path.exists():
        _compile(path)
    return path


def _cpu_features() -> set[str]:
    """The CPU's features by Linux' names; none elsewhere."""
    if platform.machine() != "x86_64":
        return set()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def _library_name() -> str:
    """Another source or other flags give another library."""
    sources = b"".join(path.read_bytes() for path in (_SOURCE, *_HEADERS))
    key = hashlib.sha256(sources + " ".join(_FLAGS).encode()).hexdigest()[:16]
    return f"decoder-{key}.so"


def _compile(path: Path) -> None:
    """Compile beside `path` and rename, so that two servers that start together do not see half a file."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise NativeUnavailable("there is no C++ compiler (g++)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as directory:
            built = Path(directory) / path.name
            command = [compiler, *_FLAGS, str(_SOURCE), "-o", str(built)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False)
            if done.returncode != 0:
                raise NativeUnavailable(f"{compiler} cannot compile it: {done.stderr.strip()[:500]}")
            built.replace(path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NativeUnavailable(f"it cannot be compiled: {error}") from error
