"""Shows on real programs that the alerts come and go as the operations guide says:

    make test-monitoring            every fault, about ten minutes; wants root
    make test-monitoring-short      some of them in under three minutes; runs without root

Three nodes under load, scraped every second by a Prometheus with short copies of the shipped rules (see `shorten`), an
Alertmanager with the shipped routes, and a receiver in this process. Faults are done for real; each alert must arrive
at the receivers that the routes name, and be resolved when the fault is mended. Before the faults the guide's own
commands are run, and nothing but Watchdog and information may fire.

Small disks and control groups need root. What cannot be shown without is skipped, said to be, and counts as not shown
unless --allow-skips is given.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from types import FrameType

from .cluster import Cluster
from .load import Load
from .machine import ControlGroups
from .processes import Failure, Process, say
from .receiver import Receiver
from .run import Options, Run
from .stack import ADDRESS, Stack, Tools

REPOSITORY = Path(__file__).resolve().parents[3]
LINES_SHOWN = 15


def arguments() -> argparse.Namespace:
    target = Path(os.environ.get("CARGO_TARGET_DIR", Path.home() / ".cache" / "llm-config" / "target"))
    parser = argparse.ArgumentParser(
        prog="live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        metavar="ALERT[,ALERT]",
        default="",
        help="only the faults that bring these alerts",
    )
    parser.add_argument("--short", action="store_true", help="the faults that take seconds")
    parser.add_argument("--allow-skips", action="store_true", help="what the machine cannot show is no failure")
    parser.add_argument("--check-dashboards", action="store_true", help="at the end, run the query of every panel")
    parser.add_argument("--draw", metavar="DIR", type=Path, help="at the end, draw each dashboard into DIR")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave the work folder, with the logs and the short files",
    )
    parser.add_argument("--factor", type=int, default=30, help="by what the rules' times are divided [30]")
    parser.add_argument("--notice-factor", type=int, default=150, help="the same of Alertmanager's [150]")
    parser.add_argument("--seed", type=int, default=1, help="of the load's random numbers [1]")
    parser.add_argument(
        "--server",
        type=Path,
        default=target / "debug" / "llm-config-manager",
        help="the program of a node",
    )
    parser.add_argument("--client", type=Path, default=target / "debug" / "llm-config", help="the command line client")
    parser.add_argument(
        "--tools",
        type=Path,
        default=target.parent / "tools" / "usr" / "bin",
        help="where .ci/tools unpacks",
    )
    return parser.parse_args()


def stop_on_signals() -> None:
    """Turns the signals that end a program into an exception, once, so that everything is ended in order."""

    def stop(number: int, _: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise Failure(f"stopped by {signal.Signals(number).name}")

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, stop)


class Work:
    """Everything that has to be ended and cleared, in the order in which it was made."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = Path(tempfile.mkdtemp(prefix="llm-config-monitoring-"))
        self.groups = ControlGroups()
        self.receiver: Receiver | None = None
        self.cluster: Cluster | None = None
        self.stack: Stack | None = None
        self.load: Load | None = None
        self.run: Run | None = None

    def processes(self) -> list[Process]:
        found: list[Process] = []
        if self.cluster is not None:
            found += [node.process for node in self.cluster.nodes] + [self.cluster.relay]
        if self.stack is not None:
            found += [self.stack.prometheus, self.stack.alertmanager]
        return found

    def course(self) -> None:
        options = self.options
        for program in (options.server, options.client):
            if not program.exists():
                raise Failure(f"{program} is missing: run `make build` first")
        tools = Tools(options.tools)
        self.receiver = Receiver(ADDRESS)
        self.cluster = Cluster(options.server, self.folder, self.groups)
        self.stack = Stack(
            tools,
            REPOSITORY / "monitoring",
            self.folder,
            self.receiver.url,
            self.cluster.nodes,
            options.factor,
            options.notice_factor,
        )
        self.cluster.start()
        self.load = Load(self.cluster, options.seed, options.client)
        self.load.prepare()
        self.stack.start()
        say(f"Prometheus at {self.stack.url}, Alertmanager at {self.stack.alertmanager_url}")
        self.load.start()
        chosen = Options(
            only=frozenset(filter(None, options.only.split(","))),
            short=options.short,
            check_dashboards=options.check_dashboards,
            draw=options.draw.resolve() if options.draw else None,
            repository=REPOSITORY,
        )
        self.run = Run(chosen, self.cluster, self.load, self.stack, self.receiver, self.groups)
        self.run.course()
        load = self.load
        say(f"clients: {load.answered} calls answered, {load.refused} refused, {load.unanswered} without an answer")

    def close(self, failed: bool) -> None:
        """Each step is tried, whatever became of the one before."""
        if failed:
            self._show_logs()
        steps = [
            self.load.stop if self.load else None,
            self.stack.stop if self.stack else None,
            self.cluster.close if self.cluster else None,
            self.groups.close,
            self.receiver.close if self.receiver else None,
        ]
        if failed or self.options.keep:
            # The nodes' own folders are mounts, which go; what is worth keeping lies beside them.
            say(f"logs and the files that were made are in {self.folder}")
        else:
            steps.append(lambda: shutil.rmtree(self.folder))
        for step in steps:
            if step is None:
                continue
            try:
                step()
            except Exception:  # noqa: BLE001 - what follows is to be ended too
                traceback.print_exc()

    def _show_logs(self) -> None:
        for process in self.processes():
            lines = process.tail(LINES_SHOWN)
            if lines:
                say(f"the end of {process.log.name}:")
                for line in lines:
                    sys.stdout.write(f"    {line}\n")


def main() -> int:
    options = arguments()
    stop_on_signals()
    work = Work(options)
    wrong: list[str] = []
    try:
        work.course()
    except Failure as failure:
        wrong.append(str(failure))
    except Exception:  # noqa: BLE001 - everything is ended, then the test fails
        wrong.append(traceback.format_exc())
    run = work.run
    if run is not None:
        wrong += run.wrong
        for outcome in run.outcomes:
            if outcome.skipped:
                if not options.allow_skips:
                    wrong.append(f"{outcome.expected.title} ({outcome.expected.severity}) was skipped")
            elif not outcome.is_there:
                wrong.append(f"{outcome.expected.title} ({outcome.expected.severity}) did not arrive")
            elif not outcome.is_resolved:
                wrong.append(f"{outcome.expected.title} ({outcome.expected.severity}) was not resolved")
    work.close(failed=bool(wrong))
    if run is not None:
        sys.stdout.write(f"\n{run.table()}\n\n")
    for line in dict.fromkeys(wrong):
        sys.stdout.write(f"FAILED: {line}\n")
    leftover = [
        thread.name for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    assert not leftover, leftover
    if not wrong:
        sys.stdout.write("every alert came and went\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
