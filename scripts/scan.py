"""Look for known vulnerabilities in every pinned package and built program, or in images by their scanner's reports.

Needs the network: pip-audit asks OSV about every pin of every requirements*.txt, whatever Python it is for, and
govulncheck asks the Go vulnerability database about every module in the programs of tools/. Refused are findings that
tools/accepted-advisories.yaml does not accept, and entries there that have expired or accept nothing.

  python scripts/scan.py
  python scripts/scan.py --image-report service.json train.json   # from `grype IMAGE --only-fixed -o json`
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from gitops import cli
from gitops.manifests import yamledit
from gitops.manifests.documents import schema_faults
from gitops.programs import tools
from gitops.repo.git import Git

from contract.errors import Refused

ACCEPTED = "tools/accepted-advisories.yaml"
LONGEST = timedelta(days=180)
_SCHEMA = Path(tools.__file__).with_name("accepted.schema.json")
# As `uv pip compile` writes it.
_PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; .+)? \\")
# Of a severity that Grype does not know, nobody can tell that it is low.
_LOW = ("Negligible", "Low", "Medium")


@dataclass(frozen=True)
class Finding:
    kind: str
    place: str
    package: str
    version: str
    ids: tuple[str, ...]
    """The advisory and its aliases."""
    fixed: tuple[str, ...]

    def __str__(self) -> str:
        also = f" ({', '.join(self.ids[1:])})" if self.ids[1:] else ""
        fixed = f"fixed in {', '.join(self.fixed)}" if self.fixed else "not fixed yet"
        remedy = f"update it, or accept it in {ACCEPTED} with a reason and a day"
        return f"{self.place}: {self.package} {self.version}: {self.ids[0]}{also}, {fixed}; {remedy}"


@dataclass(frozen=True)
class Accepted:
    place: str
    kind: str
    package: str
    advisory: str
    expires: date

    def covers(self, finding: Finding) -> bool:
        return (self.kind, self.package) == (finding.kind, finding.package) and self.advisory in finding.ids


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--image-report", nargs="+", type=Path, metavar="FILE", help="judge these reports alone")
    parser.add_argument("--osv-url", default="https://api.osv.dev/v1/query", metavar="URL")
    parser.add_argument("--go-db", default="https://vuln.go.dev", metavar="URL")
    return cli.run(scan, parser.parse_args(argv))


def scan(args: argparse.Namespace) -> None:
    accepted = read_accepted(args.root)
    if args.image_report:
        kinds, found = {"image"}, [finding for file in args.image_report for finding in in_image(file)]
    else:
        kinds, found = {"python", "go"}, [*in_locks(args.root, args.osv_url), *in_programs(args.go_db)]
    if faults := judge(found, accepted, kinds, datetime.now(UTC).date()):
        raise Refused(*faults)
    print(f"{' and '.join(sorted(kinds))}: no known vulnerability but {len(found)} that {ACCEPTED} accepts")


def judge(found: Sequence[Finding], accepted: Sequence[Accepted], kinds: set[str], today: date) -> list[str]:
    """One line a fault. Entries for what was not scanned, those not in `kinds`, may cover nothing."""
    valid = [entry for entry in accepted if entry.expires >= today]
    faults = [
        f"{entry.place}: expires: {entry.expires} is over; update the package, or look at the advisory again"
        for entry in accepted if entry not in valid
    ]  # fmt: skip
    faults += [
        f"{entry.place}: expires: {entry.expires} is more than {LONGEST.days} days ahead; set an earlier day"
        for entry in valid if entry.expires > today + LONGEST
    ]  # fmt: skip
    faults += [
        f"{entry.place}: no {entry.kind} finding is of {entry.package} and {entry.advisory}; remove the entry"
        for entry in accepted if entry.kind in kinds and not any(map(entry.covers, found))
    ]  # fmt: skip
    return faults + [str(finding) for finding in found if not any(entry.covers(finding) for entry in valid)]


def read_accepted(root: Path) -> list[Accepted]:
    """Raises Refused, one line a fault, unless the file keeps to its schema."""
    # A day without quotes is a date to YAML and a string to JSON Schema.
    data = json.loads(json.dumps(yamledit.load((root / ACCEPTED).read_bytes(), ACCEPTED), default=str))
    if faults := schema_faults(data, _SCHEMA):
        raise Refused(*[f"{ACCEPTED}: {fault}" for fault in faults])
    return [_entry(f"{ACCEPTED}: accepted.{at}", entry) for at, entry in enumerate(data["accepted"])]


def _entry(place: str, entry: Mapping[str, str]) -> Accepted:
    try:
        expires = date.fromisoformat(entry["expires"])
    except ValueError:
        raise Refused(f"{place}.expires: {entry['expires']}: no day of the calendar") from None
    return Accepted(f"{place} ({entry['advisory']})", entry["in"], entry["package"], entry["advisory"], expires)


def in_locks(root: Path, url: str) -> Iterator[Finding]:
    places = pins(root)
    versions: dict[str, list[str]] = defaultdict(list)
    for name, version in places:
        versions[name].append(version)
    # pip-audit takes a package in one version only, and leaves out what is pinned for another Python than its own.
    for at in range(max(map(len, versions.values()))):
        asked = {name: pinned[at] for name, pinned in versions.items() if at < len(pinned)}
        for answer in _pip_audit(asked, url):
            pin = answer["name"], asked[answer["name"]]
            for found in answer["vulns"]:
                ids = (found["id"], *sorted(found["aliases"]))
                yield Finding("python", ", ".join(places[pin]), *pin, ids, tuple(found["fix_versions"]))


def pins(root: Path) -> dict[tuple[str, str], list[str]]:
    """The locks that have a package in a version, by both. Raises Refused for a line that pins nothing."""
    found: dict[tuple[str, str], list[str]] = {}
    for lock in Git(root).text("ls-files", "-z", "--", "*requirements*.txt", ":!tests").split("\0"):
        for number, line in enumerate((root / lock).read_text().splitlines() if lock else [], 1):
            if pin := _PIN.fullmatch(line):
                found.setdefault((pin["name"], pin["version"]), []).append(lock)
            elif line.strip() and not line.startswith((" ", "#")):
                raise Refused(f"{lock}:{number}: {line!r} is no pin of a lock; make it with `make lock`")
    if not found:
        raise Refused(f"{root}: no requirements*.txt in Git pins anything")
    return found


def _pip_audit(asked: Mapping[str, str], url: str) -> list[dict[str, Any]]:
    """What pip-audit answers of every package, in the form of its `--format json`."""
    command = [
        sys.executable, "-m", "pip_audit", "-r", "/dev/stdin", "--no-deps", "--disable-pip", "--format", "json",
        "--progress-spinner", "off", "--vulnerability-service", "osv", "--osv-url", url,
    ]  # fmt: skip
    text = "".join(f"{name}=={version}\n" for name, version in asked.items())
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    # Its exit code is 1 for findings and for faults; an advisory that it cannot read is left out with a warning.
    warned = re.findall(r"^WARNING:pip_audit\._service\.\w+:(.+)$", done.stderr, re.M)
    if warned or not done.stdout:
        raise Refused(f"{url}: pip-audit could not ask it: {[_last(done.stderr), *warned][-1]}")
    answers: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    if left := asked.keys() - {answer["name"] for answer in answers if "vulns" in answer}:
        raise Refused(f"{url}: pip-audit did not ask about {', '.join(sorted(left))}")
    return answers


def in_programs(url: str) -> Iterator[Finding]:
    for program in tools.BUILT:
        told = _govulncheck(program, url)
        aliases = {each["osv"]["id"]: each["osv"].get("aliases", []) for each in told if "osv" in each}
        for found in (each["finding"] for each in told if "finding" in each):
            module, fixed = found["trace"][0], found.get("fixed_version")
            ids, place = (found["osv"], *aliases[found["osv"]]), f"tools/{program.folder.name}/go.mod ({program.name})"
            yield Finding("go", place, module["module"], module["version"], ids, (fixed,) if fixed else ())


def _govulncheck(program: tools.Program, url: str) -> list[dict[str, Any]]:
    """The messages of its `-format json`. By module: an advisory may name no packages or symbols."""
    for needed in (tools.GOVULNCHECK, program):
        if not needed.built:
            raise Refused(f"{needed.name} {needed.version} is not built yet: run `python scripts/setup.py scan`")
    command = [str(tools.GOVULNCHECK.path), "-mode=binary", "-scan=module", "-format=json", "-db", url]
    done = subprocess.run([*command, str(program.path)], capture_output=True, text=True)
    told = [] if done.returncode else json.loads("[" + done.stdout.replace("\n}\n{", "\n},\n{") + "]")
    if not any("SBOM" in each for each in told):
        raise Refused(f"{url}: govulncheck could not ask it about {program.name}: {_last(done.stderr)}")
    return told


def _last(text: str) -> str:
    return next(reversed(text.strip().splitlines()), "it printed nothing")


def in_image(report: Path) -> list[Finding]:
    """What a report of Grype's JSON format finds, severe or of unknown severity. Raises Refused where no system was
    recognized, whose packages Grype then leaves out."""
    try:
        data = json.loads(report.read_bytes())
        system, matches = data["distro"]["name"], data["matches"]
        found = [_match(str(report), **match) for match in matches if match["vulnerability"]["severity"] not in _LOW]
    except (ValueError, KeyError, TypeError):
        raise Refused(f"{report}: no report as `grype IMAGE -o json` prints it") from None
    if not system:
        raise Refused(f"{report}: distro.name: empty; Grype did not recognize the system of the image")
    return found


def _match(place: str, vulnerability: Any, artifact: Any, relatedVulnerabilities: Any, **_: Any) -> Finding:
    ids = dict.fromkeys([vulnerability["id"], *[each["id"] for each in relatedVulnerabilities or []]])
    fixed = tuple(vulnerability["fix"]["versions"] or [])
    return Finding("image", place, artifact["name"], artifact["version"], tuple(ids), fixed)


if __name__ == "__main__":
    raise SystemExit(main())
