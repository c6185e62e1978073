"""Run the tests of this folder in namespaces of their own: what they mount and start ends with them, however they end.

python tests/vm [OPTION OF PYTEST...]
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SYSTEMD = Path("/lib/systemd/systemd")
PROGRAMS = ("curl", "ip", "journalctl", "mount", "nsenter", "pivot_root", "setpriv", "unshare", "useradd")


def main() -> int:
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    for wrong, remedy in (
        (sys.platform != "linux", "these tests need Linux"),
        (
            sys.platform == "linux" and os.geteuid() != 0,
            "these tests mount and make users of a root of their own; run them as root",
        ),
        (not SYSTEMD.exists(), f"{SYSTEMD}: not there; run them where systemd is installed, or install it"),
        (missing, f"{', '.join(missing)}: not there; install util-linux, iproute2, curl and passwd"),
        ("overlay" not in Path("/proc/filesystems").read_text(), "no overlayfs; run `modprobe overlay`"),
    ):
        if wrong:
            print(f"error: {remedy}", file=sys.stderr)
            return 1
    # unshare ends when this process would have ended, and with it goes process 1 of the namespaces, and all that is there.
    namespaces = ["unshare", "--mount", "--ipc", "--uts", "--cgroup", "--pid", "--fork", "--kill-child", "--mount-proc"]
    tests = [sys.executable, "-m", "pytest", "-m", "vm", str(FOLDER), *sys.argv[1:]]
    os.chdir(FOLDER.parents[1])
    os.execvp("setpriv", ["setpriv", "--pdeathsig", "KILL", *namespaces, *tests])


if __name__ == "__main__":
    raise SystemExit(main())
