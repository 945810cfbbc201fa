"""The command line: `generate`, `check` and `draw`. `--help` tells the rest."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from . import guide, raft
from .panels import Json
from .prometheus import Prometheus, QueryError, empty, window
from .structure import faults

FOLDER = Path(__file__).resolve().parent.parent / "dashboards"
BOARDS: dict[str, Callable[[], Json]] = {
    "main-operations": guide.main_operations,
    "security": guide.security,
    "performance": guide.performance,
    "key-metrics": guide.key_metrics,
    "raft": raft.raft,
}


def text(dashboard: Json) -> str:
    """The file's text."""
    return json.dumps(dashboard, indent=1, ensure_ascii=False) + "\n"


def generate(folder: Path) -> None:
    """Writes the files, and removes those that nothing makes any more."""
    for path in folder.glob("*.json"):
        if path.stem not in BOARDS:
            path.unlink()
    for name, board in BOARDS.items():
        (folder / f"{name}.json").write_text(text(board()), encoding="utf-8")


def differences(folder: Path) -> list[str]:
    """Files that are not what `generate` writes."""
    found = []
    names = {path.stem for path in folder.glob("*.json")}
    for name in sorted(names | BOARDS.keys()):
        path = folder / f"{name}.json"
        wanted = text(BOARDS[name]()) if name in BOARDS else None
        if wanted != (path.read_text(encoding="utf-8") if path.exists() else None):
            found.append(f"{path.name} is not what its source makes; run `make dashboards`")
    return found


def _load(folder: Path) -> dict[str, Json]:
    return {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in BOARDS}


def _generate(options: argparse.Namespace) -> int:
    generate(options.folder)
    return 0


def _check(options: argparse.Namespace) -> int:
    found = differences(options.folder)
    if not found:
        boards = _load(options.folder)
        found = [f"{name}: {fault}" for name, board in boards.items() for fault in faults(board)]
        uids = [board["uid"] for board in boards.values()]
        if len(set(uids)) != len(uids):
            found.append(f"uids are not unique: {uids}")
        if options.prometheus and not found:
            server = Prometheus(options.prometheus)
            span = window(options.minutes, options.scrape_interval)
            known = {panel["title"] for board in boards.values() for panel in board["panels"]}
            allowed = set(options.may_be_empty)
            found = [f"--may-be-empty: no panel has the title '{title}'" for title in allowed - known]
            for name, board in boards.items():
                found += [f"{name}: {fault}" for fault in empty(server, board, span, allowed)]
    for fault in found:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if found else 0


def _draw(options: argparse.Namespace) -> int:
    # Only pictures need matplotlib.
    from .picture import draw

    server = Prometheus(options.prometheus)
    span = window(options.minutes, options.scrape_interval)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, board in _load(options.folder).items():
        path = options.out / f"dashboard-{name}.png"
        draw(server, board, span, path)
        print(path)
    return 0


def _asks(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--prometheus", metavar="URL", required=required)
    parser.add_argument("--minutes", type=float, default=60, help="how far to look back (default: 60)")
    parser.add_argument(
        "--scrape-interval",
        type=float,
        default=15,
        metavar="SECONDS",
        help="how often that Prometheus reads the nodes (default: 15)",
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; the exit status is 0 when all is well."""
    parser = argparse.ArgumentParser(prog="llm_config_dashboards", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("generate", help="write the dashboards' JSON")
    make.set_defaults(run=_generate)
    check = commands.add_parser(
        "check", help="check the JSON; with --prometheus, also that every query finds something"
    )
    _asks(check, required=False)
    check.add_argument(
        "--may-be-empty",
        action="append",
        default=[],
        metavar="TITLE",
        help="a panel that may find nothing, such as 'Banned IPs'; as often as needed",
    )
    check.set_defaults(run=_check)
    paint = commands.add_parser("draw", help="draw each dashboard from a Prometheus' data")
    _asks(paint, required=True)
    paint.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    paint.set_defaults(run=_draw)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except QueryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
