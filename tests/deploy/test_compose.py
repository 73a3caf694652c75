"""compose.yaml: every service hardened and pinned, every file that it mounts there, no key in it. Starts nothing."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.dockerfile import ROOT, read_dockerfile

PINNED = re.compile(r"\S+:v?\d+\.\d+\.\d+@sha256:[0-9a-f]{64}")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & set(service)
    assert {"test", "interval", "timeout", "retries"} <= set(service["healthcheck"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    user = service.get("user") or next(step.rest for step in read_dockerfile() if step.word == "USER")
    assert re.fullmatch(r"[1-9]\d*:\d+", user)
    assert PINNED.fullmatch(service["image"]) or "build" in service


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there_and_read_only_or_a_named_volume(name: str) -> None:
    for mount in SERVICES[name]["volumes"]:
        source, _, rest = mount.partition(":")
        if source.startswith("./"):
            assert (ROOT / source).is_dir()
            assert rest.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]
    for file in SERVICES[name].get("env_file", []):
        assert (ROOT / f"{file}.example").exists(), "an example stands for each file of keys"
        assert not (ROOT / file).exists() or _is_ignored(file)


def test_the_build_arguments_and_volumes_are_the_dockerfile_s() -> None:
    steps = read_dockerfile()
    arguments = {step.rest.partition("=")[0] for step in steps if step.word == "ARG"}
    assert set(SERVICES["hotprompt"]["build"]["args"]) == arguments
    [volumes] = [step.command for step in steps if step.word == "VOLUME"]
    assert {mount.partition(":")[2] for mount in SERVICES["hotprompt"]["volumes"]} == set(volumes)


def test_prometheus_scrapes_the_service_with_the_key_that_is_mounted() -> None:
    [job] = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    [target] = job["static_configs"][0]["targets"]
    service, _, port = target.partition(":")
    assert any(mapping.endswith(f":{port}") for mapping in SERVICES[service]["ports"])
    secret = Path(job["authorization"]["credentials_file"]).name
    assert SERVICES["prometheus"]["secrets"] == [secret]
    assert _is_ignored(COMPOSE["secrets"][secret]["file"])


def _is_ignored(file: str) -> bool:
    """Whether git leaves a file of keys out: .gitignore has its place."""
    patterns = (ROOT / ".gitignore").read_text().split()
    return {"/deploy/*.env", "/deploy/secrets/"} <= set(patterns) and file.startswith("deploy/")
