"""The files in deploy/: their syntax, and that what they name exists. No Docker and no Kubernetes is needed, or run."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from omnivox.cli import app
from omnivox.serve import ray as module
from omnivox.serve.metrics import Metrics
from omnivox.serve.ray import RaySettings
from omnivox.serve.settings import ServeSettings

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
PAGE = DEPLOY.parent / "docs" / "deploy.md"
INSTRUCTIONS = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER", "WORKDIR"}


def load(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def dockerfile() -> list[tuple[str, str]]:
    """Each instruction and what follows it, comments left out and continued lines joined."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [line.strip().split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name, rest) for name, rest in found]


def accept(words: list[str]) -> None:
    """Raises where `omnivox` does not know these words; runs nothing."""
    command = typer.main.get_command(app)
    with command.make_context("omnivox", ["--version"], resilient_parsing=True) as context:
        found = command.get_command(context, words[0])  # type: ignore[attr-defined]
    assert found is not None, f"omnivox has no command {words[0]!r}"
    found.make_context("omnivox", words[1:])


@pytest.mark.parametrize("file", sorted(DEPLOY.glob("*.y*ml")), ids=lambda file: file.name)
def test_each_file_is_yaml(file: Path) -> None:
    assert isinstance(yaml.safe_load(file.read_text()), dict)


# -- Docker -----------------------------------------------------------------------------------------------------------

def test_the_dockerfile_has_instructions_alone_and_begins_with_its_base() -> None:
    names = [name for name, _ in dockerfile()]
    assert set(names) <= INSTRUCTIONS
    assert names[:2] == ["ARG", "FROM"]
    assert dict(dockerfile())["FROM"] == "${BASE}"


def test_the_image_runs_what_exists_as_somebody_without_rights() -> None:
    found = dict(dockerfile())
    [program], words = json.loads(found["ENTRYPOINT"]), json.loads(found["CMD"])
    assert program == "omnivox"
    accept(words)
    assert found["USER"] == "omnivox"
    assert f'"{found["EXPOSE"]}"' in found["CMD"]
    assert f":{found['EXPOSE']}/healthz" in found["HEALTHCHECK"]


def test_the_shell_of_the_image_parses() -> None:
    for name, script in dockerfile():
        if name == "RUN":
            done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


def test_what_is_copied_exists_and_is_let_through() -> None:
    allowed = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    copied = [word for name, rest in dockerfile() if name == "COPY" for word in rest.split()[:-1]]
    assert sorted(allowed) == sorted(copied)
    assert all((DEPLOY.parent / name).exists() for name in copied)


def test_what_the_build_needs_is_copied(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    copied = [word for name, rest in dockerfile() if name == "COPY" for word in rest.split()]
    assert {project["readme"], *project["license-files"], "pyproject.toml", "constraints.txt", "omnivox"} <= {*copied}


def test_every_extra_of_the_image_exists(root: Path) -> None:
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"EXTRAS=([\w,]+)", (DEPLOY / "Dockerfile").read_text() + PAGE.read_text())
    assert named
    assert {extra for group in named for extra in group.split(",")} <= extras.keys()


# -- Compose and Prometheus -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml"])
def test_the_command_of_the_service_exists(name: str) -> None:
    accept(load(name)["services"]["omnivox"]["command"])


def test_compose_builds_what_is_there_and_passes_arguments_that_it_takes() -> None:
    taken = {rest.split("=")[0] for name, rest in dockerfile() if name == "ARG"}
    build = load("compose.yaml")["services"]["omnivox"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).exists()
    assert build["args"].keys() | load("compose.cuda.yaml")["services"]["omnivox"]["build"]["args"].keys() <= taken


def test_nothing_listens_beyond_this_machine_and_keys_are_demanded() -> None:
    services = load("compose.yaml")["services"]
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service["ports"])
    keys = services["omnivox"]["environment"]["OMNIVOX_API_KEYS"].split("$")[1:]
    assert len(keys) == 2
    assert all(":?" in key for key in keys)  # without it compose stops


def test_compose_waits_longer_than_the_server_drains() -> None:
    service = load("compose.yaml")["services"]["omnivox"]
    drain = float(service["command"][service["command"].index("--drain-seconds") + 1])
    assert float(service["stop_grace_period"].removesuffix("s")) > drain + 3


def test_volumes_and_secrets_are_declared() -> None:
    compose = load("compose.yaml")
    for service in compose["services"].values():
        assert set(service.get("secrets", ())) <= compose["secrets"].keys()
        for source in (volume.split(":")[0] for volume in service.get("volumes", ())):
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"]


def test_prometheus_asks_the_service_with_its_key() -> None:
    [job] = load("prometheus.yml")["scrape_configs"]
    [[target]] = [config["targets"] for config in job["static_configs"]]
    name, port = target.split(":")
    services = load("compose.yaml")["services"]
    command = services[name]["command"]
    assert command[command.index("--port") + 1] == port
    assert Path(job["authorization"]["credentials_file"]).name in services["prometheus"]["secrets"]
    assert job["metrics_path"] == "/metrics"


def test_the_page_names_the_metrics_that_there_are() -> None:
    metrics = Metrics()
    metrics.replied("completed")
    metrics.failed("x")
    shown = set(re.findall(r"^# TYPE (omnivox_\w+) ", metrics.render()[0].decode(), re.MULTILINE))
    kept = {name for name in shown if not name.endswith("_created")}
    assert set(re.findall(r"`(omnivox_\w+)`", PAGE.read_text())) == kept


# -- Ray and Kubernetes -----------------------------------------------------------------------------------------------

def serve_config() -> Any:
    return yaml.safe_load(load("kuberay.yaml")["spec"]["serveConfigV2"])


def test_the_application_is_built_as_the_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    [application] = serve_config()["applications"]
    name, function = application["import_path"].split(":")
    assert getattr(importlib.import_module(name), function) is module.build
    built: list[Any] = []
    monkeypatch.setattr(module, "application", lambda *args: built.extend(args))
    monkeypatch.setenv("OMNIVOX_API_KEYS", "key")
    module.build(application["args"])
    _, settings, cluster = built
    assert isinstance(settings, ServeSettings)
    workers = load("kuberay.yaml")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert isinstance(cluster, RaySettings)
    assert cluster.replicas == sum(group["replicas"] for group in workers)
    for group in workers:
        pod = group["template"]["spec"]
        assert cluster.cpus <= float(pod["containers"][0]["resources"]["requests"]["cpu"])
        assert pod["terminationGracePeriodSeconds"] > settings.drain_seconds


def test_ray_accepts_the_configuration() -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install '.[ray]'")
    script = ("import json, sys\nfrom ray.serve.schema import ServeDeploySchema\n"
              "ServeDeploySchema(**json.load(sys.stdin))")
    done = subprocess.run([sys.executable, "-c", script], input=json.dumps(serve_config()), capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_cluster_runs_the_ray_that_the_extra_asks_for(root: Path) -> None:
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [least] = [part.split(">=")[1] for part in extras["ray"]]
    stated = load("kuberay.yaml")["spec"]["rayClusterConfig"]["rayVersion"]
    assert [int(part) for part in stated.split(".")] >= [int(part) for part in least.split(".")]


def test_keys_come_from_a_secret_that_the_file_and_the_page_tell_how_to_make() -> None:
    config = load("kuberay.yaml")["spec"]["rayClusterConfig"]
    for group in [config["headGroupSpec"], *config["workerGroupSpecs"]]:
        [container] = group["template"]["spec"]["containers"]
        [secret] = [item["valueFrom"]["secretKeyRef"] for item in container["env"]
                    if item["name"] == "OMNIVOX_API_KEYS"]
        made = f"kubectl create secret generic {secret['name']} --from-literal={secret['key']}="
        assert made in (DEPLOY / "kuberay.yaml").read_text()
        assert made in PAGE.read_text()


# -- the page ---------------------------------------------------------------------------------------------------------

def test_the_page_names_files_that_exist() -> None:
    named = set(re.findall(r"deploy/[\w.]+\w", PAGE.read_text()))
    assert named >= {"deploy/Dockerfile", "deploy/compose.yaml", "deploy/kuberay.yaml"}
    assert all((DEPLOY.parent / name).exists() for name in named)


def test_the_commands_that_the_page_gives_to_a_container_exist() -> None:
    lines = PAGE.read_text().replace("\\\n", " ").splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("docker run")]
    assert commands
    for words in commands:
        image = next(i for i, word in enumerate(words) if word.startswith("omnivox"))
        if words[image + 1:]:
            accept(words[image + 1:])


def test_the_options_that_the_page_names_exist() -> None:
    command = typer.main.get_command(app)
    with command.make_context("omnivox", ["--version"], resilient_parsing=True) as context:
        serve = command.get_command(context, "serve")  # type: ignore[attr-defined]
    options = {name for parameter in serve.params for name in parameter.opts}
    ours = set(re.findall(r"`(--[\w-]+)[ `]", PAGE.read_text()))
    assert ours
    assert ours <= options
    assert "OMNIVOX_API_KEYS" in {parameter.envvar for parameter in serve.params}
