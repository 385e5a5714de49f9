"""`deploy/`: every file passes its linter, and says what the server really reads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from guard.policy import load_class
from guard.server import health
from guard.server.configuration import load_settings
from guard.server.guards import Loader

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
KUBERNETES: Final = DEPLOY / "kubernetes"
MISTAKES: Final = {
    "hadolint": ("Containerfile", "USER 10001:10001", "USER"),
    "yamllint": ("guard.yaml", "keys: []", "keys: []\nkeys: []"),
    "check-jsonschema": ("compose.yaml", "image:", "imgae:"),
    "kubernetes-validate": ("kubernetes/deployment.yaml", "replicas: 2", "replicas: two"),
}
"""For each linter a file, and a mistake in it."""


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `lint` in a copy of the folder, with the tools beside this Python found, too."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [folder / "lint"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": path},
    )


def manifest(name: str) -> dict[str, Any]:
    """Return what a manifest says."""
    value: dict[str, Any] = yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text("utf-8"))
    return value


def container() -> dict[str, Any]:
    """Return the deployment's container."""
    (only,) = manifest("deployment")["spec"]["template"]["spec"]["containers"]
    value: dict[str, Any] = only
    return value


class TestLinters:
    """`deploy/lint`."""

    @pytest.mark.parametrize("tool", MISTAKES)
    def test_passes_and_would_not(self, tool: str, tmp_path: Path) -> None:
        """Each linter passes what is there, and refuses it with a mistake in it."""
        places = [str(Path(sys.executable).parent), os.environ["PATH"]]
        if shutil.which(tool, path=os.pathsep.join(places)) is None:
            pytest.skip(f"{tool} is not installed here: see `deploy/lint`")
        folder = tmp_path / "deploy"
        shutil.copytree(DEPLOY, folder)
        assert f"passed:  {tool}" in lint(folder).stdout
        name, right, wrong = MISTAKES[tool]
        spoilt = folder / name
        text = spoilt.read_text("utf-8")
        spoilt.write_text(text.replace(right, wrong), encoding="utf-8")
        done = lint(folder)
        assert f"failed:  {tool}" in done.stdout
        assert done.returncode == 1


class TestContainer:
    """The image, which cannot be built here: what its file says."""

    TEXT = (DEPLOY / "Containerfile").read_text("utf-8")

    def test_not_root(self) -> None:
        """The process has a numeric user of its own, the last that is named."""
        users = re.findall(r"^USER (.+)$", self.TEXT, re.MULTILINE)
        assert users == ["10001:10001"]

    def test_health(self) -> None:
        """The health check asks the path that there is."""
        assert health.READY in self.TEXT

    def test_extras(self) -> None:
        """The stores that replicas share need no image of one's own: PostgreSQL and Redis."""
        (extras,) = re.findall(r"\.\[([\w,]+)\]", self.TEXT)
        assert {"server", "postgres", "redis"} <= set(extras.split(","))

    def test_what_it_copies(self) -> None:
        """Everything that it copies is let into the build, and there."""
        ignore = (DEPLOY / "Containerfile.dockerignore").read_text("utf-8").splitlines()
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", self.TEXT, re.MULTILINE):
            for name in line.split():
                assert f"!{name}" in ignore
                assert (DEPLOY.parent / name).exists()

    def test_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its variables are settings; with a key or `--open` they are all that is needed."""
        variables = dict(re.findall(r"(GUARD_\w+)=(\S+)", self.TEXT))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        settings = load_settings(open=True)
        assert (settings.host, settings.port) == ("0.0.0.0", 8080)
        assert settings.journal == variables["GUARD_JOURNAL"]


class TestSettings:
    """The settings and policies that are there to start from."""

    def test_the_example(self) -> None:
        """It is read without a problem, and lets nobody in before a client is named."""
        assert load_settings(DEPLOY / "guard.yaml").keys == ()

    def test_the_config_map(self, tmp_path: Path) -> None:
        """Settings and policy of the cluster are usable; other machines may call with a key."""
        data = manifest("configmap")["data"]
        for name, text in data.items():
            placed = text.replace("/etc/clearance", str(tmp_path))
            (tmp_path / name).write_text(placed, encoding="utf-8")
        settings = load_settings(tmp_path / "guard.yaml", host="0.0.0.0")
        assert settings.keys
        house = load_class(settings.security_class)
        assert house.name == "house"
        assert house.live is not None, "drift of a deployment on a cluster would not be followed"
        assert Loader(settings, None)()


class TestAlerts:
    """`deploy/prometheus/rules.yaml`."""

    def test_what_the_rules_ask_for_is_exported(self, serve: Callable[..., httpx2.Client]) -> None:
        """Each names numbers of `/metrics`: a rule over any other never fires."""
        client = serve()
        client.post("/v1/guard/check", json={"response": "Hi."})
        exported = set(re.findall(r"^# TYPE (\w+)", client.get("/metrics").text, re.MULTILINE))
        text = (DEPLOY / "prometheus/rules.yaml").read_text("utf-8")
        (group,) = yaml.safe_load(text)["groups"]
        for rule in group["rules"]:
            named = set(re.findall(r"\bguard_\w+", rule["expr"]))
            assert named
            assert named <= exported, rule["alert"]
        assert "guard_alarm_standing" in text

    def test_they_are_those_of_the_documentation(self) -> None:
        """What docs/server.md says to be woken for has a rule."""
        text = (DEPLOY / "prometheus/rules.yaml").read_text("utf-8")
        page = (DEPLOY.parent / "docs/server.md").read_text("utf-8")
        (advice,) = re.findall(r"What to be woken for: `([^`]+)`", page)
        assert f"expr: {advice}\n" in text


class TestCluster:
    """The manifests among each other and with the server."""

    def test_probes(self) -> None:
        """Probes ask the paths that there are, on the port that is named."""
        probes = {name: container()[name]["httpGet"] for name in container() if "Probe" in name}
        assert {probe["port"] for probe in probes.values()} == {"http"}
        assert probes["livenessProbe"]["path"] == health.LIVE
        assert {p["path"] for n, p in probes.items() if n != "livenessProbe"} == {health.READY}

    def test_hardened(self) -> None:
        """No root, no privileges, nothing to write to, no token, no variables of services."""
        pod = manifest("deployment")["spec"]["template"]["spec"]
        own = container()["securityContext"]
        assert own["readOnlyRootFilesystem"] is True
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert set(container()["resources"]["limits"]) == {"cpu", "memory"}

    def test_time_to_stop(self) -> None:
        """Pods are killed after the pause and the grace period, and not before."""
        pod = manifest("deployment")["spec"]["template"]["spec"]
        pause = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
        grace = yaml.safe_load(manifest("configmap")["data"]["guard.yaml"])["grace_seconds"]
        assert pod["terminationGracePeriodSeconds"] >= pause + grace + 5

    def test_labels(self) -> None:
        """Service, budget and network policy mean the deployment's pods."""
        labels = manifest("deployment")["spec"]["template"]["metadata"]["labels"]
        assert manifest("service")["spec"]["selector"] == labels
        assert manifest("disruption")["spec"]["selector"]["matchLabels"] == labels
        assert manifest("network")["spec"]["podSelector"]["matchLabels"] == labels

    def test_stores_can_be_reached(self) -> None:
        """Pods may go to the journal's database and to the Redis that the settings offer."""
        rules = manifest("network")["spec"]["egress"]
        within = [rule["ports"] for rule in rules if rule.get("to") == [{"podSelector": {}}]]
        opened = {port["port"] for ports in within for port in ports}
        (redis,) = re.findall(
            r"# live: redis://[\w-]+:(\d+)", manifest("configmap")["data"]["guard.yaml"]
        )
        assert {5432, int(redis)} <= opened

    def test_every_manifest_is_applied(self) -> None:
        """The kustomization names every file."""
        named = manifest("kustomization")["resources"]
        there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
        assert set(named) == there

    def test_compose(self) -> None:
        """The compose file's services are as hardened, and give running requests their time."""
        services = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]
        for service in services.values():
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert int(service["stop_grace_period"].removesuffix("s")) > 30
        assert services["demo"]["ports"] == ["127.0.0.1:8080:8080"]
