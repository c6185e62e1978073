"""What a compiled file needs of the machine that loads it: other libraries, and versions of their symbols."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from contract.errors import Refused

Version = tuple[int, ...]
_MAGIC = b"\x7fELF"
_NUMBERED = re.compile(r"(?P<name>[A-Z]+)_(?P<version>[0-9]+(\.[0-9]+)*)")


@dataclass(frozen=True)
class System:
    """What an operating system has."""

    name: str
    libraries: frozenset[str]
    """The files beside those of glibc, by the names under which they are asked for."""
    versions: Mapping[str, Version]
    """The newest version of symbols, by what their names begin with."""


_GLIBC = frozenset({
    "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1",
    "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1",
})  # fmt: skip
# glibc 2.34, GCC 11, OpenSSL 3. Its own Python, with which cloud-init and dnf run, needs the libraries.
AMAZON_LINUX_2023 = System(
    "Amazon Linux 2023",
    _GLIBC | {"libcrypto.so.3", "libffi.so.8", "libgcc_s.so.1", "libssl.so.3", "libstdc++.so.6", "libz.so.1"},
    {"GLIBC": (2, 34), "GLIBCXX": (3, 4, 29), "CXXABI": (1, 3, 13), "GCC": (11,), "OPENSSL": (3, 0, 0)},
)


@dataclass(frozen=True)
class Needs:
    machine: str
    """As platform.machine() has it."""
    libraries: Sequence[str]
    symbols: Mapping[str, Version]
    """The newest version of symbols, by what their names begin with."""


_MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}


def needs(path: Path) -> Needs | None:
    """None for a file of another form. Raises Refused for one that is damaged."""
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            return None
        try:
            sections = [*(elf := ELFFile(file)).iter_sections()]
            libraries = [
                # Some ask for a place beside them, as $ORIGIN/../lib/NAME.
                Path(tag.needed).name  # type: ignore[attr-defined]
                for section in sections
                if isinstance(section, DynamicSection)
                for tag in section.iter_tags("DT_NEEDED")
            ]
            named = [
                symbol.name
                for section in sections
                if isinstance(section, GNUVerNeedSection)
                for _, symbols in section.iter_versions()
                for symbol in symbols
            ]
        except ELFError as error:
            raise Refused(f"{path}: a damaged program or library: {error}; install it anew") from None
    newest: dict[str, Version] = {}
    for match in filter(None, map(_NUMBERED.fullmatch, named)):
        version = tuple(map(int, match["version"].split(".")))
        newest[match["name"]] = max(version, newest.get(match["name"], ()))
    machine = str(elf["e_machine"])
    return Needs(_MACHINES.get(machine, machine), libraries, newest)


def faults(folder: Path, system: System, machine: str) -> Iterator[str]:
    """What in a folder could not be loaded on this system, a line each. It may need what is in the folder itself."""
    found = {path: need for path in sorted(folder.rglob("*")) if path.is_file() and (need := needs(path))}
    own = {path.name for path in found}
    for path, need in found.items():
        where = path.relative_to(folder)
        if need.machine != machine:
            yield f"{where}: for {need.machine}, and not for {machine}"
        for name in need.libraries:
            if name not in own | system.libraries:
                yield f"{where}: needs {name}, which {system.name} does not have"
        for name, version in need.symbols.items():
            most = system.versions.get(name)
            if most and version > most:
                yield f"{where}: needs {name} {_text(version)}, and {system.name} has {_text(most)}"


def _text(version: Version) -> str:
    return ".".join(map(str, version))
