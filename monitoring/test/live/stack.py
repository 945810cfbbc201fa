"""Prometheus and Alertmanager, given short copies of the shipped files."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import shorten
from .cluster import Node, get_json
from .processes import Failure, Process, free_port, wait_for

ADDRESS = "127.0.0.1"
JOB = "llm-config-manager"
CLUSTER = "live-test"


class Tools:
    """The programs: those on the PATH, else those that .ci/tools unpacked."""

    def __init__(self, folder: Path) -> None:
        def find(*names: str) -> str:
            for name in names:
                found = shutil.which(name) or shutil.which(name, path=str(folder))
                if found:
                    return found
            raise Failure(f"{names[0]} is neither on the PATH nor in {folder}: run .ci/tools")

        self.prometheus = find("prometheus")
        self.promtool = find("promtool")
        self.amtool = find("amtool")
        self.alertmanager = find("prometheus-alertmanager", "alertmanager")


# Where Debian's Alertmanager looks for its templates, and the same place, in as many bytes, below the working folder.
_TEMPLATES = b"/usr/share/prometheus/alertmanager"
_TEMPLATES_BELOW = b"usr/share/prometheus/alertmanager/"


def _alertmanager(program: Path, folder: Path) -> tuple[Path, Path | None]:
    """A program that starts, and the folder to start it in.

    Debian's reads its templates at a fixed path, where they are when the package is installed. Of a package that was only
    unpacked a copy is run that looks for them where it was unpacked.
    """
    code = program.read_bytes()
    unpacked = program.resolve().parents[2]
    if (
        _TEMPLATES not in code
        or Path(_TEMPLATES.decode(), "default.tmpl").exists()
        or not (unpacked / _TEMPLATES_BELOW.decode() / "default.tmpl").exists()
    ):
        return program, None
    copy = folder / program.name
    copy.write_bytes(code.replace(_TEMPLATES, _TEMPLATES_BELOW))
    copy.chmod(0o700)
    return copy, unpacked


def _checked(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Stack:
    def __init__(
        self,
        tools: Tools,
        shipped: Path,
        folder: Path,
        receiver_url: str,
        nodes: list[Node],
        factor: int,
        notice_factor: int,
    ) -> None:
        self._tools = tools
        self._nodes = nodes
        self._routes = shipped / "alertmanager" / "alertmanager.yml"
        prometheus_port, alertmanager_port = free_port(ADDRESS), free_port(ADDRESS)
        self.url = f"http://{ADDRESS}:{prometheus_port}"
        self.alertmanager_url = f"http://{ADDRESS}:{alertmanager_port}"

        at = folder / "prometheus"
        (at / "rules").mkdir(parents=True)
        (at / "targets").mkdir()
        self.alerts: set[str] = set()
        files = sorted((shipped / "prometheus" / "rules").glob("*.yml"))
        for file in files:
            text = file.read_text()
            self.alerts |= shorten.alert_names(text)
            (at / "rules" / file.name).write_text(shorten.rules(text, factor))
        targets = [{"labels": {"cluster": CLUSTER}, "targets": [node.instance for node in nodes]}]
        (at / "targets" / "nodes.yml").write_text(json.dumps(targets))
        scrape = at / "prometheus.yml"
        scrape.write_text(
            shorten.scrape(
                (shipped / "prometheus" / "prometheus.yml").read_text(),
                f"{ADDRESS}:{prometheus_port}",
                f"{ADDRESS}:{alertmanager_port}",
            )
        )
        _checked(tools.promtool, "check", "config", str(scrape))

        text, self.receivers = shorten.routes(self._routes.read_text(), notice_factor, receiver_url)
        routes = folder / "alertmanager.yml"
        routes.write_text(text)
        _checked(tools.amtool, "check-config", str(routes))

        self.prometheus = Process(
            "prometheus",
            [
                tools.prometheus,
                f"--config.file={scrape}",
                f"--storage.tsdb.path={at / 'data'}",
                f"--web.listen-address={ADDRESS}:{prometheus_port}",
                # The default is a minute, which is two seconds' worth of the shortened rules.
                "--rules.alert.resend-delay=5s",
                "--log.level=warn",
            ],
            folder / "prometheus.log",
        )
        program, unpacked = _alertmanager(Path(tools.alertmanager), folder)
        self.alertmanager = Process(
            "alertmanager",
            [
                str(program),
                f"--config.file={routes}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address={ADDRESS}:{alertmanager_port}",
                "--cluster.listen-address=",
                "--log.level=warn",
            ],
            folder / "alertmanager.log",
            folder=unpacked,
        )

    def start(self) -> None:
        self.alertmanager.start()
        wait_for("Alertmanager answers", 30, lambda: _answers(f"{self.alertmanager_url}/api/v2/status"))
        self.prometheus.start()
        wait_for("Prometheus answers", 60, lambda: _answers(f"{self.url}/api/v1/status/buildinfo"))

        def found() -> bool:
            # Prometheus drops alerts until it has found where to send them.
            managers = get_json(f"{self.url}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
            up = self.query(f'up{{job="{JOB}"}} == 1')
            return bool(managers) and len(up) == len(self._nodes)

        wait_for("Prometheus reads every node and has found Alertmanager", 60, found)

    def stop(self) -> None:
        self.prometheus.stop()
        self.alertmanager.stop()

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = get_json(f"{self.url}/api/v1/query?query={quote(expression)}")
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def number(self, expression: str) -> float | None:
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> list[Mapping[str, str]]:
        """The labels of the alerts that fire now, as Prometheus sees it."""
        alerts = get_json(f"{self.url}/api/v1/alerts")["data"]["alerts"]
        return [alert["labels"] for alert in alerts if alert["state"] == "firing"]

    def suppressed(self) -> set[str]:
        """The names of the alerts that Alertmanager holds back because of others."""
        alerts = get_json(f"{self.alertmanager_url}/api/v2/alerts?active=false&inhibited=true")
        return {a["labels"]["alertname"] for a in alerts if a["status"]["inhibitedBy"]}

    def receivers_of(self, labels: Mapping[str, str]) -> set[str]:
        """Where the shipped routes send an alert."""
        pairs = [f"{name}={value}" for name, value in labels.items()]
        command = [self._tools.amtool, "config", "routes", "test", f"--config.file={self._routes}"]
        return set(_checked(*command, *pairs).strip().split(","))


def _answers(url: str) -> bool:
    try:
        get_json(url, seconds=2)
    except (OSError, Failure):
        return False
    return True
