"""Dockerfile.worker, compose.yaml and the examples for Kubernetes and systemd: valid, and consistent with this release.

The tests need no container engine: hadolint checks the Dockerfile, Docker Compose parses the compose file, and the
schemas of Kubernetes check the manifests. The real command line parses every command.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

import agentexec as ax
from agentexec.arguments.variables import env_var_name
from agentexec.cli.app import build_app
from agentexec.config import Settings
from agentexec.worker.stopping import KILL_AFTER
from tests.waiting import patient

REPOSITORY = Path(__file__).resolve().parents[3]
PROGRAMS = Path(sys.executable).parent
DOCKERFILE = REPOSITORY / "Dockerfile.worker"
COMPOSE = REPOSITORY / "compose.yaml"
EXAMPLE_COMPOSE = REPOSITORY / "examples" / "openai-agents-fastapi" / "compose.yaml"
MANIFESTS = sorted((REPOSITORY / "examples" / "kubernetes").glob("*.yaml"))
UNIT = REPOSITORY / "examples" / "systemd" / "agentexec-worker.service"
GUIDE = REPOSITORY / "docs" / "guides" / "deployment.md"
READ_BY_PEOPLE = [GUIDE, REPOSITORY / "examples" / "kubernetes" / "README.md"]
FILES = [DOCKERFILE, COMPOSE, EXAMPLE_COMPOSE, *MANIFESTS, UNIT, *READ_BY_PEOPLE]

CLOSING = 2 * KILL_AFTER + 15
"""Seconds that a supervisor may take beyond the graceful timeout: to kill, to give back tasks, to close."""


def run(program: str, *arguments: str, text: str | None = None, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [PROGRAMS / program, *arguments],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
        cwd=REPOSITORY,
        input=text,
        capture_output=True,
        text=True,
        timeout=patient(60),
    )
    return done.returncode, done.stdout + done.stderr


# ---- commands and variables --------------------------------------------------------------------------------


def words_in(value: Any) -> Iterator[list[str]]:
    """Yield every list of words in a YAML document."""
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from words_in(inner)


def commands_of(file: Path) -> list[list[str]]:
    """Return the arguments of every `agentexec` command that a file runs or mentions."""
    content = file.read_text(encoding="utf-8")
    found: list[list[str]] = []
    if file.suffix == ".yaml":
        found += [words for document in yaml.safe_load_all(content) for words in words_in(document)]
    found += [json.loads(words) for words in re.findall(r'\[(?:"[^"]*",? ?)+\]', content)]
    lines = re.findall(r"^Exec\w+=(.+)$", content, re.MULTILINE)
    lines += re.findall(r"`(agentexec [^`]+)`", content) + re.findall(
        r"^    (agentexec .+)$", content, re.MULTILINE
    )
    found += [line.partition(" #")[0].split() for line in lines]
    commands = [words[1:] if words[0] == "CMD" else words for words in found]
    return [words[1:] for words in commands if words[0].rpartition("/")[2] == "agentexec" and words[1:]]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_every_command_and_option_exists(file: Path) -> None:
    group: Any = typer.main.get_command(build_app())
    for name, *arguments in commands_of(file):
        # Raises for an unknown option.
        group.commands[name].make_context(name, list(arguments))


def test_the_commands_are_found() -> None:
    assert ["worker"] in commands_of(DOCKERFILE) and ["worker", "--check"] in commands_of(DOCKERFILE)
    assert ["migrate", "--app", ""] in commands_of(COMPOSE) and ["worker", "--ready"] in commands_of(COMPOSE)
    assert commands_of(UNIT) == [["migrate"], ["worker"]]
    assert len([command for file in MANIFESTS for command in commands_of(file)]) >= 4


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_every_variable_is_a_setting(file: Path) -> None:
    settings = {env_var_name(name) for name in Settings.model_fields}
    named = set(re.findall(r"\bAGENTEXEC_[A-Z_]+\b", file.read_text(encoding="utf-8")))
    assert named <= settings


# ---- Dockerfile --------------------------------------------------------------------------------------------


def test_the_image_runs_a_worker_as_a_user_under_an_init_and_is_probed() -> None:
    *_, last = re.split(r"^FROM ", DOCKERFILE.read_text(), flags=re.MULTILINE)
    assert 'ENTRYPOINT ["tini", "--"]' in last
    assert 'CMD ["agentexec", "worker"]' in last
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert re.search(r'^HEALTHCHECK .* CMD \["agentexec", "worker", "--check"\]$', last, re.MULTILINE)
    assert "WORKDIR /app" in last and "PYTHONPATH=/app" in last


def test_versions_match_the_repository() -> None:
    content = DOCKERFILE.read_text()
    (uv,) = re.findall(r"^uv_version=(.+)$", (REPOSITORY / "dev").read_text(), re.MULTILINE)
    assert re.findall(r"^ARG UV_VERSION=(.+)$", content, re.MULTILINE) == [uv]
    assert re.findall(r"^ARG VERSION=(.+)$", content, re.MULTILINE) == [ax.__version__]


def test_images_are_pinned_to_a_patch_release_or_a_digest() -> None:
    images = [service["image"] for service in services().values() if "build" not in service]
    images += re.findall(r"^ARG PYTHON_IMAGE=(.+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert len(images) == 3
    for image in images:
        assert re.search(r":\d+\.\d+(\.\d+)?-[a-z-]+$|@sha256:[0-9a-f]{64}$", image), image
        # PostgreSQL's releases have two numbers, the others' three.
        assert image.count(".", image.rindex(":")) == (1 if "postgres" in image else 2) or "@" in image, image


def test_copied_files_are_not_ignored_by_the_build() -> None:
    allowed = [
        line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(), re.MULTILINE):
        for name in line.split()[:-1]:
            assert (REPOSITORY / name).exists()
            assert name.removeprefix("./") in allowed


# ---- Compose -----------------------------------------------------------------------------------------------

SECRETS = {"POSTGRES_PASSWORD": "sesame", "OPENAI_API_KEY": "sesame"}
CONFIG = ("--env-file", os.devnull, "config")  # a developer may have a .env here


both_compose_files = pytest.mark.parametrize(
    "file", [COMPOSE, EXAMPLE_COMPOSE], ids=lambda file: file.parent.name
)


@cache
def services(file: Path = COMPOSE) -> dict[str, Any]:
    """Return the services as Docker Compose itself parses them."""
    code, printed = run("docker-compose", "--file", str(file), *CONFIG, "--format", "json", **SECRETS)
    assert code == 0, printed
    return json.loads(printed)["services"]


def is_once(service: dict[str, Any]) -> bool:
    return service.get("restart") == "no"


def seconds(length: str) -> float:
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", length))


@both_compose_files
def test_compose_has_the_services_of_a_deployment(file: Path) -> None:
    assert set(services(file)) == {"redis", "postgres", "migrate", "worker", "web"}


@both_compose_files
def test_every_service_is_probed_or_ends_by_itself(file: Path) -> None:
    for name, service in services(file).items():
        probe = service.get("healthcheck", {})
        assert probe.get("test") or (is_once(service) and probe.get("disable")), name


@both_compose_files
def test_every_service_waits_for_its_dependencies(file: Path) -> None:
    for name, service in services(file).items():
        for other, wait in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if is_once(services(file)[other]) else "service_healthy"
            assert wait["condition"] == wanted, f"{name} on {other}"
    assert set(services(file)["worker"]["depends_on"]) == {"redis", "postgres", "migrate"}


@both_compose_files
def test_compose_lets_a_worker_drain(file: Path) -> None:
    worker = services(file)["worker"]
    graceful = float(worker["environment"]["AGENTEXEC_GRACEFUL_SHUTDOWN_TIMEOUT"])
    assert seconds(worker["stop_grace_period"]) > graceful + CLOSING


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_come_from_the_environment_only(name: str) -> None:
    code, printed = run(
        "docker-compose", *CONFIG, "--quiet", **{k: v for k, v in SECRETS.items() if k != name}
    )
    assert code != 0 and f"set {name}" in printed


def test_our_services_run_with_minimal_privileges() -> None:
    for name in ("migrate", "worker", "web"):
        service = services()[name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert not service.get("privileged") and service.get("user", "10001").startswith("10001")


# ---- Kubernetes --------------------------------------------------------------------------------------------


@cache
def manifest(kind: str) -> dict[str, Any]:
    documents = [document for file in MANIFESTS for document in yaml.safe_load_all(file.read_text())]
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_manifests_are_valid_for_kubernetes(file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        if document["apiVersion"].startswith("keda.sh/"):
            continue  # not a Kubernetes schema; see the tests of the ScaledObject
        for version in ("1.30", "1.35"):
            kubernetes_validate.validate(document, version, strict=True)


def test_a_pod_has_the_time_to_drain() -> None:
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    graceful = {variable["name"]: variable["value"] for variable in container["env"]}[
        "AGENTEXEC_GRACEFUL_SHUTDOWN_TIMEOUT"
    ]
    assert pod["terminationGracePeriodSeconds"] > float(graceful) + CLOSING


def test_liveness_checks_the_supervisor_and_readiness_the_workers() -> None:
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    probes = {
        name: container[f"{name}Probe"]["exec"]["command"][-1]
        for name in ("startup", "liveness", "readiness")
    }
    assert probes == {"startup": "--ready", "liveness": "--check", "readiness": "--ready"}
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    folder = str(Path(env["AGENTEXEC_HEARTBEAT_FILE"]).parent)
    assert folder in {mount["mountPath"] for mount in container["volumeMounts"]}, "the root is read-only"


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_pods_run_with_minimal_privileges_and_bounded_memory(kind: str) -> None:
    pod = manifest(kind)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
    for container in pod["containers"]:
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]


def test_every_manifest_selects_the_same_pods() -> None:
    pods = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("Deployment")["spec"]["selector"]["matchLabels"] == pods
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == pods
    assert (
        manifest("ScaledObject")["spec"]["scaleTargetRef"]["name"]
        == manifest("Deployment")["metadata"]["name"]
    )
    for kind in ("Deployment", "Job"):
        (container,) = manifest(kind)["spec"]["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": manifest("Secret")["metadata"]["name"]}}]


def test_the_target_per_pod_is_its_number_of_slots() -> None:
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    (trigger,) = manifest("ScaledObject")["spec"]["triggers"]
    assert trigger["metricType"] == "AverageValue"
    slots = int(env["AGENTEXEC_NUM_WORKERS"]) * int(env["AGENTEXEC_WORKER_CONCURRENCY"])
    assert int(trigger["metadata"]["targetQueryValue"]) == slots
    assert trigger["metadata"]["connectionFromEnv"] in manifest("Secret")["stringData"]


# ---- systemd -----------------------------------------------------------------------------------------------


def test_systemd_signals_the_supervisor_and_lets_it_drain() -> None:
    unit = UNIT.read_text()
    (graceful,) = re.findall(r"^Environment=AGENTEXEC_GRACEFUL_SHUTDOWN_TIMEOUT=(\d+)$", unit, re.MULTILINE)
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(stop) > int(graceful) + CLOSING
    for line in ("KillMode=mixed", "KillSignal=SIGTERM", "RuntimeDirectory=agentexec", "NoNewPrivileges=yes"):
        assert line in unit.splitlines()
    assert not re.search(r"^User=root$", unit, re.MULTILINE)
