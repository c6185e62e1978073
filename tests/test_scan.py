"""The scan for known vulnerabilities, by its real scanners, against advisories that are served here."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Result, git, run

import scan
from gitops.programs import tools

TODAY = datetime.now(UTC).date()
REMEDY = "update it, or accept it in tools/accepted-advisories.yaml with a reason and a day"
HASH = "    --hash=sha256:" + "0" * 64
MODULE = "github.com/go-openapi/swag"


def advisory(name: str, system: str, id: str, alias: str, fixed: str) -> dict[str, Any]:
    """In the OSV format, 1.x: https://ossf.github.io/osv-schema/."""
    events = [{"introduced": "0"}, {"fixed": fixed}]
    kind = "SEMVER" if system == "Go" else "ECOSYSTEM"
    return {
        "schema_version": "1.7.0", "id": id, "aliases": [alias], "summary": "Bad.", "modified": "2026-01-01T00:00:00Z",
        "affected": [{"package": {"name": name, "ecosystem": system}, "ranges": [{"type": kind, "events": events}]}],
    }  # fmt: skip


GO = advisory(MODULE, "Go", "GO-2026-9001", "CVE-2026-9001", "99.0.0")
PYTHON = advisory("wheelhouse", "PyPI", "GHSA-aaaa-bbbb-cccc", "CVE-2026-1000", "1.3")


@dataclass
class Service:
    """An OSV service and a Go vulnerability database: https://google.github.io/osv.dev/post-v1-query/ and
    https://go.dev/doc/security/vuln/database."""

    url: str = ""
    vulnerable: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    status: int = 200
    go: list[Any] = field(default_factory=list)

    def answer(self, query: Any) -> Any:
        pin = query["package"]["name"], query["version"]
        self.asked.append(pin)
        return {"vulns": self.vulnerable[pin]} if pin in self.vulnerable else {}

    def file(self, path: str) -> Any:
        listed = [{"path": MODULE, "vulns": [{"id": one["id"], "modified": one["modified"]}]} for one in self.go]
        files: dict[str, Any] = {"/index/db.json": {"modified": "2026-01-01T00:00:00Z"}, "/index/modules.json": listed}
        return (files | {f"/ID/{one['id']}.json": one for one in self.go}).get(path)


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()

    class Handler(http.server.BaseHTTPRequestHandler):
        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            found = made.file(self.path.removesuffix(".gz"))
            self.reply(404 if found is None else made.status, gzip.compress(json.dumps(found).encode()))

        do_HEAD = do_GET  # whether there is a database at all

        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply(made.status, json.dumps(made.answer(query)).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        made.url = f"http://127.0.0.1:{server.server_port}"
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two locks, one of which has a package in one version for old and another for new versions of Python."""
    monkeypatch.setattr(tools, "BUILT", (tools.MANIFESTS,))
    root = tmp_path / "root"
    (root / "tools").mkdir(parents=True)
    (root / "model-src").mkdir()
    lock(root / "requirements.txt", "wheelhouse==1.2", "plain==2.0 ; python_full_version < '3.1'", "plain==3.0")
    lock(root / "model-src/requirements-serve.txt", "wheelhouse==1.2")
    accept(root)
    git(root, "init", "-q")
    git(root, "add", ".")
    return root


def lock(path: Path, *pinned: str) -> None:
    path.write_text("# made\n" + "".join(f"{pin} \\\n{HASH}\n    # via here\n" for pin in pinned))


def accept(root: Path, *entries: dict[str, Any]) -> None:
    (root / scan.ACCEPTED).write_text(yaml.safe_dump({"accepted": list(entries)}))


def entry(**fields: Any) -> dict[str, Any]:
    made = {"advisory": "GHSA-aaaa-bbbb-cccc", "in": "python", "package": "wheelhouse"}
    return made | {"reason": "never called here", "expires": TODAY} | fields


def scanned(root: Path, service: Service, *args: str) -> Result:
    return run("scan", "--root", root, "--osv-url", f"{service.url}/v1/query", "--go-db", service.url, *args)


def test_every_pin_and_module_is_asked_about_whatever_python_it_is_for(root: Path, service: Service) -> None:
    done = scanned(root, service)

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("go and python: no known vulnerability but 0 that ")
    assert sorted(service.asked) == [("plain", "2.0"), ("plain", "3.0"), ("wheelhouse", "1.2")]


def test_a_vulnerable_pin_is_refused_with_its_locks_version_advisory_and_fix(root: Path, service: Service) -> None:
    service.vulnerable = {("wheelhouse", "1.2"): [PYTHON], ("plain", "2.0"): [PYTHON | {"id": "PYSEC-2026-1"}]}

    done = scanned(root, service)

    assert done.code == 1
    assert done.errors == [
        "model-src/requirements-serve.txt, requirements.txt: wheelhouse 1.2: CVE-2026-1000 (GHSA-aaaa-bbbb-cccc),"
        f" fixed in 1.3; {REMEDY}",
        f"requirements.txt: plain 2.0: PYSEC-2026-1 (CVE-2026-1000), not fixed yet; {REMEDY}",
    ]


def test_a_module_in_a_built_program_is_refused_and_accepted(root: Path, service: Service) -> None:
    service.go = [GO]

    done = scanned(root, service)

    [line] = done.errors
    assert line.startswith(f"tools/manifests/go.mod (manifests): {MODULE} v")
    assert line.endswith(f": GO-2026-9001 (CVE-2026-9001), fixed in v99.0.0; {REMEDY}")
    accept(root, entry(**{"in": "go", "package": MODULE, "advisory": "CVE-2026-9001"}))
    assert scanned(root, service).code == 0


@pytest.mark.parametrize("id", ["GHSA-aaaa-bbbb-cccc", "CVE-2026-1000"])
def test_an_accepted_advisory_passes_until_its_day_is_over(id: str, root: Path, service: Service) -> None:
    service.vulnerable = {("wheelhouse", "1.2"): [PYTHON]}

    accept(root, entry(advisory=id))
    assert scanned(root, service).out.startswith("go and python: no known vulnerability but 1 that ")

    yesterday = TODAY - timedelta(days=1)
    accept(root, entry(advisory=id, expires=yesterday))
    done = scanned(root, service)
    assert done.code == 1
    assert done.errors[0] == (
        f"tools/accepted-advisories.yaml: accepted.0 ({id}): expires: {yesterday} is over;"
        " update the package, or look at the advisory again"
    )
    assert "wheelhouse 1.2: CVE-2026-1000 (GHSA-aaaa-bbbb-cccc), fixed in 1.3" in done.errors[1]


@pytest.mark.parametrize("other", [{"package": "plain"}, {"in": "go"}, {"advisory": "GHSA-dddd-eeee-ffff"}])
def test_an_entry_covers_nothing_but_what_it_names(other: dict[str, str], root: Path, service: Service) -> None:
    service.vulnerable = {("wheelhouse", "1.2"): [PYTHON]}
    accept(root, entry(), one := entry(**other))

    done = scanned(root, service)

    assert (done.code, done.errors) == (
        1,
        [
            f"tools/accepted-advisories.yaml: accepted.1 ({one['advisory']}): no {one['in']} finding is of"
            f" {one['package']} and {one['advisory']}; remove the entry"
        ],
    )


def test_a_day_without_end_is_none(root: Path, service: Service) -> None:
    service.vulnerable = {("wheelhouse", "1.2"): [PYTHON]}
    accept(root, entry(expires=TODAY + timedelta(days=180)))
    assert scanned(root, service).code == 0

    accept(root, entry(expires=(far := TODAY + timedelta(days=181))))
    assert scanned(root, service).errors == [
        "tools/accepted-advisories.yaml: accepted.0 (GHSA-aaaa-bbbb-cccc): expires:"
        f" {far} is more than 180 days ahead; set an earlier day"
    ]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"reason": None}, "accepted.0.reason: None is not of type 'string'"),
        ({"reason": " "}, r"accepted.0.reason: ' ' does not match '\\S+\\s+\\S+'"),
        ({"expires": "never"}, "accepted.0.expires: 'never' does not match '^[0-9]{4}-[0-9]{2}-[0-9]{2}$'"),
        ({"expires": "2026-02-31"}, "accepted.0.expires: 2026-02-31: no day of the calendar"),
        ({"in": "npm"}, "accepted.0.in: 'npm' is not one of ['python', 'go', 'image']"),
        ({"until": TODAY}, "accepted.0: Additional properties are not allowed ('until' was unexpected)"),
    ],
)
def test_an_entry_without_reason_or_day_is_refused(change: dict[str, Any], fault: str, root: Path) -> None:
    accept(root, entry(**change))

    assert run("scan", "--root", root).errors == [f"tools/accepted-advisories.yaml: {fault}"]


@pytest.mark.parametrize("field", ["advisory", "in", "package", "reason", "expires"])
def test_every_field_of_an_entry_is_asked_for(field: str, root: Path) -> None:
    accept(root, {name: value for name, value in entry().items() if name != field})

    assert run("scan", "--root", root).errors == [
        f"tools/accepted-advisories.yaml: accepted.0: '{field}' is a required property"
    ]


def test_a_service_that_cannot_be_asked_fails_the_scan(root: Path, service: Service) -> None:
    gone = "http://127.0.0.1:1"

    python = run("scan", "--root", root, "--osv-url", gone, "--go-db", service.url)
    go = run("scan", "--root", root, "--osv-url", service.url, "--go-db", gone)
    service.status = 503
    broken = scanned(root, service)

    assert [done.code for done in (python, go, broken)] == [1, 1, 1]
    assert python.errors[0].startswith(f"{gone}: pip-audit could not ask it: ")
    assert go.errors[0].startswith(f"{gone}: govulncheck could not ask it about manifests: ")
    assert broken.errors[0].startswith(f"{service.url}/v1/query: pip-audit could not ask it: ")


def test_an_advisory_that_the_scanner_cannot_read_fails_the_scan(root: Path, service: Service) -> None:
    service.vulnerable = {("wheelhouse", "1.2"): [PYTHON | {"schema_version": "2.0.0"}]}

    [line] = scanned(root, service).errors

    assert line.endswith("pip-audit could not ask it: Unsupported OSV schema version: 2.0.0")


@pytest.mark.parametrize("line", ["wheelhouse>=1.2 \\", "wheelhouse @ git+https://example.com/a", "-r other.txt", "x"])
def test_a_line_that_pins_nothing_is_refused(line: str, root: Path) -> None:
    (root / "requirements.txt").write_text(f"# made\n{line}\n{HASH}\n")

    assert run("scan", "--root", root).errors == [
        f"requirements.txt:2: {line!r} is no pin of a lock; make it with `make lock`"
    ]


def test_where_nothing_is_pinned_nothing_is_passed(root: Path) -> None:
    git(root, "rm", "-qf", "requirements.txt", "model-src/requirements-serve.txt")

    assert run("scan", "--root", root).errors == [f"{root}: no requirements*.txt in Git pins anything"]


# Images


def match(severity: str) -> dict[str, Any]:
    return {
        "vulnerability": {"id": "CVE-2026-1", "severity": severity, "fix": {"versions": ["3.1"], "state": "fixed"}},
        "relatedVulnerabilities": [{"id": "CVE-2026-1"}, {"id": "CVE-2026-2"}],
        "artifact": {"name": "libssl3", "version": "3.0", "type": "deb"},
        "matchDetails": [],
    }


def reported(root: Path, *severities: str, **fields: Any) -> Path:
    file = root / "image.json"
    file.write_text(json.dumps({"distro": {"name": "debian"}, "matches": [match(s) for s in severities]} | fields))
    return file


@pytest.mark.parametrize("severity", ["High", "Critical", "Unknown"])
def test_a_severe_finding_in_an_image_is_refused_and_accepted(severity: str, root: Path) -> None:
    report = reported(root, severity, "Low")

    done = run("scan", "--root", root, "--image-report", report)

    assert done.errors == [f"{report}: libssl3 3.0: CVE-2026-1 (CVE-2026-2), fixed in 3.1; {REMEDY}"]
    accept(root, entry(**{"in": "image", "package": "libssl3", "advisory": "CVE-2026-2"}), entry())
    # What accepts a finding elsewhere is used elsewhere.
    assert run("scan", "--root", root, "--image-report", report, report).code == 0


def test_a_list_of_an_image_may_be_null(root: Path) -> None:
    bare = match("High") | {"relatedVulnerabilities": None}
    bare["vulnerability"]["fix"]["versions"] = None
    report = reported(root, matches=[bare])

    [line] = run("scan", "--root", root, "--image-report", report).errors

    assert line == f"{report}: libssl3 3.0: CVE-2026-1, not fixed yet; {REMEDY}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"distro": {"name": ""}}, "distro.name: empty; Grype did not recognize the system of the image"),
        ({"distro": None}, "no report as `grype IMAGE -o json` prints it"),
        ({"matches": [{"vulnerability": {"severity": "High"}}]}, "no report as `grype IMAGE -o json` prints it"),
        ({"matches": [{}]}, "no report as `grype IMAGE -o json` prints it"),
    ],
)
def test_a_report_that_cannot_be_judged_is_refused(fields: dict[str, Any], message: str, root: Path) -> None:
    report = reported(root, **fields)

    assert run("scan", "--root", root, "--image-report", report).errors == [f"{report}: {message}"]


# This repository


def test_every_program_that_is_built_is_looked_at() -> None:
    folders = {file.parent for file in (ROOT / "tools").glob("*/go.mod")}
    # Of the others only files are kept, which nobody runs.
    built = {folder for folder in folders if "\ntool " in (folder / "go.mod").read_text() or [*folder.glob("*.go")]}

    assert {program.folder for program in tools.BUILT} == built


def test_the_repositorys_own_pins_and_accepted_advisories_can_be_read() -> None:
    places = scan.pins(ROOT)

    assert ("pip-audit" in {name for name, _ in places}) and scan.read_accepted(ROOT) is not None
