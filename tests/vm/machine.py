"""A machine in the place of an instance: a systemd as process 1 of namespaces of its own, on a root of its own.

The root is an overlay over that of this machine, and what is written there stays from one boot to the next, in memory.
The network is the one of the tests.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

# systemd in a container: it finds what runs in /proc, and makes the rest.
_BOOT = """
set -e
cd "$1"
shift
mount --make-rprivate /
mount -t proc proc proc
# What the kernel has for all is not to be changed from here.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for each in dev run tmp; do mount -t tmpfs -o mode=755 tmpfs "$each"; done
chmod 1777 tmp
# The checkout may lie in one of them.
for each in "$@"; do
  mkdir -p ".$each"
  mount --bind "$each" ".$each"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
while read -r name minor; do mknod -m 666 "dev/$name" c 1 "$minor"; done << END
null 3
zero 5
full 7
random 8
urandom 9
END
mknod -m 666 dev/tty c 5 0
mkdir -p old
pivot_root . old
umount -l old
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
exec env -i container=test PATH="$PATH" /lib/systemd/systemd --log-target=journal
"""
# As cloud-init does: once, when all else is started, and as a program of its own.
_CLOUD_INIT = """
[Unit]
Description=The user data, at the first boot
After=multi-user.target
ConditionPathExists=!/var/lib/cloud/ran

[Service]
Type=oneshot
ExecStartPre=/usr/bin/touch /var/lib/cloud/ran
ExecStart=/var/lib/cloud/user-data
"""
# What begins the name of a control group of these tests.
_GROUP = "model-gitops-vm-"
_START = "[Unit]\nRequires=basic.target multi-user.target\nAfter=multi-user.target\nWants=user-data.service\n"


class Machine:
    def __init__(
        self, folder: Path, user_data: str, environment: Mapping[str, str], programs: Mapping[str, Path]
    ) -> None:
        """`folder` is new; `environment` is that of all units; `programs`, each of a virtual environment, are found in
        the root by these names."""
        self.root, upper = folder / "root", folder / "upper"
        for each in (self.root, upper, folder / "work"):
            each.mkdir(parents=True)
        layers = f"lowerdir=/,upperdir={upper},workdir={folder / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", self.root], check=True)
        self._folder = folder
        # What this machine runs is not of an instance.
        for wanted in (self.root / "etc/systemd/system").glob("*.wants"):
            shutil.rmtree(wanted)
        self._process: subprocess.Popen[bytes] | None = None
        self._group = _new_group()
        variables = " ".join(f'"{name}={value}"' for name, value in environment.items())
        for path, text in {
            "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
            "etc/hostname": "instance\n",
            "etc/systemd/system.conf.d/test.conf": f"[Manager]\nDefaultEnvironment={variables}\n",
            "etc/systemd/journald.conf.d/test.conf": "[Journal]\nStorage=persistent\nRateLimitBurst=0\n",
            "etc/systemd/system/user-data.service": _CLOUD_INIT,
            "etc/systemd/system/test.target": _START,
            "var/lib/cloud/user-data": user_data,
        }.items():
            file = self.root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            file.write_text(text)
        (self.root / "var/lib/cloud/user-data").chmod(0o700)
        self._link("etc/systemd/system/default.target", "test.target")
        for name, program in programs.items():
            self._link(f"usr/local/bin/{name}", str(program))
        self._environments = [str(program.parent.parent) for program in programs.values()]

    def _link(self, path: str, target: str) -> None:
        (self.root / path).unlink(missing_ok=True)
        (self.root / path).symlink_to(target)

    def boot(self) -> None:
        namespaces = ["unshare", "--mount", "--ipc", "--uts", "--cgroup", "--pid", "--fork", "--kill-child"]
        # Process 1 takes the control group that it finds itself in for the root of all.
        enter = ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self._group)]
        self._process = subprocess.Popen(
            [*enter, *namespaces, "/bin/sh", "-c", _BOOT, "boot", str(self.root), *self._environments],
            stdin=subprocess.DEVNULL,
        )

    def reboot(self) -> None:
        """As a machine does when it is told to: everything is stopped in order."""
        assert self._process
        self.run("systemctl", "reboot")
        self._process.wait(60)
        self.boot()

    def run(self, *command: str) -> str:
        """What a command in the machine prints. Raises CalledProcessError when it fails."""
        done = subprocess.run(
            ["nsenter", "--target", str(self._first()), "--mount", "--pid", "--uts", "--ipc", "--cgroup", *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    def _first(self) -> int:
        """Its process 1, as this namespace numbers it."""
        assert self._process
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0])

    def journal(self) -> str:
        with contextlib.suppress(subprocess.CalledProcessError, IndexError, FileNotFoundError):
            return self.run("journalctl", "--no-pager", "--lines=200")
        return "no journal"

    def end(self) -> None:
        """At once, as when the power goes, and with all that it has written."""
        if self._process:
            self._process.kill()
            self._process.wait()
        subprocess.run(["umount", "--lazy", self.root], check=True)
        shutil.rmtree(self._folder)
        _remove(self._group)


def _new_group() -> Path:
    """A control group of these tests. Those that killed tests have left are empty, and go."""
    [parent] = [
        Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"
    ][:1]
    for left in parent.glob(f"{_GROUP}*"):
        _remove(left)
    made = Path(tempfile.mkdtemp(prefix=_GROUP, dir=parent))
    return made


def _remove(group: Path) -> None:
    """Removes a control group, and those below it, unless processes are in it."""
    for folder in [*sorted(group.rglob("*/"), reverse=True), group]:
        with contextlib.suppress(OSError):
            folder.rmdir()
