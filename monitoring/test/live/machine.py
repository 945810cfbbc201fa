"""What the test asks of the machine to break a node for real: small disks and control groups. Both need root.

Whatever cannot be had is None, and the faults that need it are skipped and reported.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .processes import say, wait_for

_BLOCK_BYTES = 1 << 20


class Volume:
    """A small file system of its own (tmpfs), with room for a file that takes the space of others."""

    def __init__(self, at: Path) -> None:
        self.at = at
        self._ballast = at / "ballast"

    @classmethod
    def mount(cls, at: Path, mib: int) -> Volume | None:
        at.mkdir(parents=True, exist_ok=True)
        if os.geteuid() != 0:
            return None
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0755", "tmpfs", str(at)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        if mounted.returncode != 0:
            say(f"no file system can be mounted: {mounted.stderr.strip()}")
            return None
        return cls(at)

    @classmethod
    def mount_all(cls, folders: list[Path], mib: int) -> Sequence[Volume | None]:
        """One in each folder, or none at all."""
        mounted: list[Volume] = []
        for at in folders:
            volume = cls.mount(at, mib)
            if volume is None:
                for other in mounted:
                    other.unmount()
                return [None] * len(folders)
            mounted.append(volume)
        return mounted

    def free_bytes(self) -> int:
        sizes = os.statvfs(self.at)
        return sizes.f_bavail * sizes.f_frsize

    def capacity_bytes(self) -> int:
        sizes = os.statvfs(self.at)
        return sizes.f_blocks * sizes.f_frsize

    def leave(self, free_bytes: int) -> None:
        """Lets the ballast grow or shrink until so much is free."""
        with self._ballast.open("ab") as ballast:
            missing = self.free_bytes() - free_bytes
            if missing < 0:
                ballast.truncate(max(0, ballast.tell() + missing))
                return
            zeros = bytes(_BLOCK_BYTES)
            while missing > 0:
                missing -= ballast.write(zeros[: min(missing, _BLOCK_BYTES)])

    def relieve(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        # Lazily: what still holds a file open must not leave the mount behind.
        subprocess.run(["umount", "-l", str(self.at)], timeout=20, check=False)


class ControlGroup:
    """One control group of one controller, in either version of control groups."""

    def __init__(self, folder: Path, version: int, controller: str) -> None:
        self._folder = folder
        self._version = version
        self._controller = controller

    def _write(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text)

    def take(self, pid: int) -> None:
        """Memory that the process has already stays with the group that it came from."""
        self._write("cgroup.procs", str(pid))

    def limit_cores(self, cores: float) -> None:
        period_us = 100_000
        quota_us = int(cores * period_us)
        if self._version == 2:
            self._write("cpu.max", f"{quota_us} {period_us}")
        else:
            self._write("cpu.cfs_period_us", str(period_us))
            self._write("cpu.cfs_quota_us", str(quota_us))

    def limit_memory(self, limit_bytes: int) -> None:
        self._write("memory.max" if self._version == 2 else "memory.limit_in_bytes", str(limit_bytes))

    def unlimit_cores(self) -> None:
        if self._version == 2:
            self._write("cpu.max", "max")
        else:
            self._write("cpu.cfs_quota_us", "-1")

    def remove(self) -> None:
        def gone() -> bool:
            try:
                self._folder.rmdir()
            except FileNotFoundError:
                return True
            except OSError:
                return False
            return True

        wait_for(f"control group {self._folder} is empty", 10, gone)


class ControlGroups:
    """Makes groups below the one that this process is in, and removes them."""

    def __init__(self) -> None:
        self._made: list[ControlGroup] = []
        self._name = f"llm-config-test-{os.getpid()}"

    def make(self, controller: str, name: str) -> ControlGroup | None:
        """A group of the controller (`cpu` or `memory`), or None where none can be made."""
        for version, parent in _parents(controller):
            folder = parent / f"{self._name}-{controller}-{name}"
            try:
                folder.mkdir()
            except OSError:
                continue
            group = ControlGroup(folder, version, controller)
            self._made.append(group)
            needed = {
                (1, "cpu"): "cpu.cfs_quota_us",
                (1, "memory"): "memory.limit_in_bytes",
                (2, "cpu"): "cpu.max",
                (2, "memory"): "memory.max",
            }[version, controller]
            if (folder / needed).exists():
                return group
            group.remove()
            self._made.remove(group)
        return None

    def close(self) -> None:
        for group in self._made:
            try:
                group.remove()
            except Exception as error:  # noqa: BLE001 - the others are to be removed too
                say(f"{error}")
        self._made.clear()


def _parents(controller: str) -> list[tuple[int, Path]]:
    """Where this process stands in each hierarchy that may have the controller."""
    own: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for each in controllers.split(","):
            own[each] = path
    parents: list[tuple[int, Path]] = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, at, kind, options, *_ = line.split(" ")
        if kind == "cgroup" and controller in options.split(","):
            parents.append((1, _below(Path(at), own.get(controller, "/"))))
        elif kind == "cgroup2":
            parent = _below(Path(at), own.get("", "/"))
            # Only where it is handed on already: changing that would change the whole machine.
            handed_on = parent / "cgroup.subtree_control"
            while not handed_on.exists() or controller not in handed_on.read_text().split():
                if parent == Path(at):
                    break
                parent = parent.parent
                handed_on = parent / "cgroup.subtree_control"
            parents.append((2, parent))
    return parents


def _below(mount: Path, path: str) -> Path:
    """In a container the path may be one that only the machine outside knows."""
    inside = mount / path.lstrip("/")
    return inside if inside.is_dir() else mount
