"""The operations guide's own commands, run as written where they can, on a cluster on which nothing is wrong.

The guide's `localhost` is node 1's address here, `/var/lib/llm-config` its data directory, and what the container engine
or the journal would print are the nodes' logs.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass

from .cluster import HTTP_PORT, METRICS_PORT, Cluster
from .processes import Failure, say, wait_for

LINES_SHOWN = 20


@dataclass(frozen=True)
class Ran:
    status: int
    out: str


def _run(command: str) -> Ran:
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    return Ran(done.returncode, done.stdout)


def check(cluster: Cluster) -> list[str]:
    """What is wrong, one line for each."""
    node = cluster.nodes[0]
    found: list[str] = []
    jq = "jq" if shutil.which("jq") else f"{shlex.quote(sys.executable)} -m json.tool #"
    http, metrics = f"http://{node.host}:{HTTP_PORT}", f"http://{node.host}:{METRICS_PORT}"
    data = shlex.quote(str(node.data))
    logs = "cat " + " ".join(shlex.quote(str(each.process.log)) for each in cluster.nodes)

    def run(command: str, good: bool, why: str) -> None:
        say(f"  {'ok' if good else 'WRONG'}: {command}")
        if not good:
            found.append(f"{command}: {why}")

    command = f"curl -s {http}/health | {jq} '.'"
    ran = _run(command)
    try:
        status = json.loads(ran.out)["status"]
    except (ValueError, KeyError):
        status = "nothing that can be read"
    run(command, status == "healthy", f"says {status}: {ran.out[:1000]}")

    for name in ("config_errors_total", "config_operations_total"):
        command = f"curl -s {metrics}/metrics | grep {name}"
        lines = _run(command).out.splitlines()
        run(command, any(line.startswith(name + "{") for line in lines), "finds no such series")

    command = f"{logs} | grep ERROR"
    ran = _run(command)
    run(command, ran.status == 1 and not ran.out, f"finds lines on a healthy day:\n{_some(ran.out)}")

    command = f"{logs} | grep -i error | wc -l"
    ran = _run(command)
    lines_with = _run(f"{logs} | grep -i error").out
    run(
        command,
        ran.out.strip() == "0",
        f"counts {ran.out.strip()} on a healthy day:\n{_some(lines_with)}",
    )

    command = f"ls -lht {data}/backups/ | head -5"
    try:
        # A node makes the first one by itself once it is part of a cluster.
        ran = wait_for("a backup", 60, lambda: _backups(command))
        run(command, True, "")
    except Failure:
        run(command, False, f"shows no backup: {_run(command).out}")

    command = f"df -h {data}"
    ran = _run(command)
    run(command, ran.status == 0 and len(ran.out.splitlines()) == 2, f"says {ran.out}")
    return found


def _backups(command: str) -> Ran | None:
    ran = _run(command)
    return ran if re.search(r"\.backup$", ran.out, re.MULTILINE) else None


def _some(text: str) -> str:
    lines = text.splitlines()
    more = [f"  … and {len(lines) - LINES_SHOWN} more"] if len(lines) > LINES_SHOWN else []
    return "\n".join([f"  {line}" for line in lines[:LINES_SHOWN]] + more)
