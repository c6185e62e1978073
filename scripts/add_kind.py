"""Add a kind to what this repository may deploy: its schema, its add-on, and the projects that allow it.

The CustomResourceDefinitions come from files, or from a Go module whose checksum Go compares with its public log. They
are copied into schemas/, so that every check works offline. Name what brings them to the cluster: an add-on of
argocd/platform/, or what installs them outside of Git. A kind that has a schema already needs no more than its name.

  python scripts/add_kind.py --crd servicemonitors.yaml --addon kube-prometheus-stack
  python scripts/add_kind.py --module github.com/prometheus-operator/prometheus-operator@v0.85.0 \\
      --file 'example/prometheus-operator-crd/*_servicemonitors.yaml' --addon kube-prometheus-stack --env dev
  python scripts/add_kind.py --crd rollouts.yaml --outside "the cloud team's Terraform" --pod-spec spec.template.spec
  python scripts/add_kind.py --kind ExternalSecret.external-secrets.io
  python scripts/add_kind.py --kind ClusterIssuer.cert-manager.io --platform
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops import cli
from gitops.checks import admission, argocd, kubeconform
from gitops.manifests import definitions, kinds, kustomize, schemas, yamledit
from gitops.manifests.objects import KUSTOMIZATION, Object, at, mappings
from gitops.programs import building, tools
from gitops.releases import writing
from gitops.repo import applications, layout
from gitops.repo.git import Git
from gitops.repo.layout import PLATFORM
from gitops.repo.policy import IN_CLUSTER, POLICY_FILE, Policy, read_policy

from contract.errors import Refused

OTHERS = ("data", "other-kinds")
LISTS = {"Namespaced": "namespaceResourceWhitelist", "Cluster": "clusterResourceWhitelist"}
BROUGHT, SOURCE = {"addon", "outside"}, {"module", "sum"}
PINNED = re.compile(r"[^@\s]+@v[0-9]+\.[0-9]+\.[0-9]+\S*")


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--crd", type=Path, action="append", default=[], metavar="FILE", help="a file of definitions")
    parser.add_argument("--module", metavar="PATH@VERSION", help="a Go module that has them, at one version")
    parser.add_argument("--file", action="append", default=[], metavar="GLOB", help="the files in the module")
    parser.add_argument("--kind", action="append", default=[], metavar="KIND.GROUP", help="of these only; repeatable")
    parser.add_argument("--env", action="append", default=[], help="who may have it (default: every environment)")
    parser.add_argument("--platform", action="store_true", help="argocd/platform/ may have it")
    parser.add_argument("--addon", metavar="NAME", help="the Application of argocd/platform/ that brings it")
    parser.add_argument("--outside", metavar="REASON", help="what else installs it, in words")
    parser.add_argument(
        "--pod-spec", action="append", default=[], metavar="PATH",
        help="where the kind has the spec of its pods, such as spec.template.spec; * is every item of a list or a map",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if not (args.crd or args.module or args.kind):
        parser.error("name definitions by --crd or --module, or a kind that is known by --kind")
    if (args.crd and args.module) or bool(args.module) != bool(args.file):
        parser.error("give either --crd, or --module with --file")
    if (args.addon and args.outside) or ((args.crd or args.module) and not (args.addon or args.outside)):
        parser.error("name what brings the kind to the cluster, by either --addon or --outside")
    return cli.run(add, args)


def add(args: argparse.Namespace) -> None:
    git = Git(args.root)
    there = kinds.files(args.root)
    found, checksum = given(args)
    chosen = list(found) or args.kind
    made = there | {kinds.path(name): kinds.text(definition) for name, definition in found.items()}
    if entry := told(args, checksum):
        before = kinds.listed(there)
        after = {name: entered(name, before.get(name, {}), entry, anew=name in found) for name in chosen}
        made[kinds.INDEX] = kinds.index(before | after)
    own = kinds.parse(made).definitions
    index = schemas.kinds(folder := schemas.folder(list(own.values())))
    faults = kubeconform.check({kinds.FOLDER: [own[name] for name in found]}, folder)
    if faults:
        raise Refused(*map(str, faults))
    if unknown := [name for name in chosen if name not in index]:
        raise Refused(*[f"--kind {name}: no schema is known; `{kinds.command(name)}` adds one" for name in unknown])
    allowed = Allowed(args, {name: index[name]["scope"] for name in chosen}).files()
    changed = {path: text for path, text in (made | allowed).items() if _read(args.root, path) != text}
    if not args.dry_run:
        for path in changed:
            (args.root / path).parent.mkdir(exist_ok=True)
        writing.write_files(git, changed)
    tell(args, chosen, sorted(changed))


def tell(args: argparse.Namespace, chosen: Sequence[str], changed: Sequence[str]) -> None:
    if args.json:
        cli.print_json({"kinds": list(chosen), "files": list(changed), "dry_run": args.dry_run})
        return
    for path in changed:
        print(path)
    if not changed:
        cli.say(f"nothing to do: {', '.join(chosen)} is known and allowed there already")
    elif args.dry_run:
        cli.say("would write these")
    else:
        cli.say("wrote these; next: `python scripts/validate.py`, then open a pull request to cicd with nothing else")


# The definitions


def given(args: argparse.Namespace) -> tuple[dict[str, Object], str]:
    """The definitions that the options name, by KIND.GROUP, and the checksum of their module; empty for files."""
    checksum = ""
    if args.module:
        if not PINNED.fullmatch(args.module):
            raise Refused(f"--module {args.module}: not PATH@VERSION with one exact version, such as v1.2.3")
        try:
            texts, checksum = building.module_files(args.module, args.file)
        except tools.ToolError as error:
            raise Refused(*str(error).splitlines()) from None
    else:
        texts = {str(file): _required(file) for file in args.crd}
    found: dict[str, Object] = {}
    for file, text in texts.items():
        for definition in definitions.read(text, file):
            name = definitions.name(definition)
            if found.setdefault(name, definition) != definition:
                raise Refused(f"{file}: defines {name}, and so does another definition, differently; name one of them")
    if missing := [name for name in args.kind if texts and name not in found]:
        raise Refused(f"--kind {', '.join(missing)}: not among what is there: {', '.join(sorted(found))}")
    return {name: found[name] for name in args.kind or found if name in found}, checksum


def _required(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Refused(f"--crd {file}: {error.strerror}") from None


def told(args: argparse.Namespace, checksum: str) -> dict[str, Any]:
    """What the options give of an entry of the index."""
    if args.addon and args.addon not in (there := addons(args.root)):
        raise Refused(
            f"--addon {args.addon}: no Application of {PLATFORM}/, which has {', '.join(there)}; add it there first, or"
            " say by --outside what installs the kind"
        )
    entry = {
        "addon": args.addon, "outside": args.outside, "module": args.module, "sum": checksum, "pods": args.pod_spec,
    }  # fmt: skip
    return {field: value for field, value in entry.items() if value}


def entered(name: str, before: Mapping[str, Any], entry: Mapping[str, Any], *, anew: bool) -> dict[str, Any]:
    """An entry of the index with what the options give in the place of what it had; a new definition is of another
    source."""
    gone = {*(BROUGHT if entry.keys() & BROUGHT else ()), *(SOURCE if anew else ())}
    after = {field: value for field, value in before.items() if field not in gone} | dict(entry)
    if not after.keys() & BROUGHT:
        raise Refused(f"--pod-spec: {name}: not in {kinds.INDEX}; `{kinds.command(name)} --pod-spec PATH` adds it")
    return after


def addons(root: Path) -> list[str]:
    """Those of any cluster, by the names that they have on the first."""
    found = set()
    for cluster in (IN_CLUSTER, *read_policy(root).clusters):
        for folder in (each for each in layout.brought(cluster) if (root / each / KUSTOMIZATION).is_file()):
            rendered = kustomize.rendered(root, folder)
            names = [str(at(item, "metadata", "name")) for item in rendered if item.get("kind") == "Application"]
            found |= {name.removesuffix(f"-{cluster}") for name in names}
    return sorted(found)


# Who may have them


@dataclass(frozen=True)
class Allowed:
    """The kinds, with their scopes, and who may have them."""

    args: argparse.Namespace
    scopes: Mapping[str, str]

    def files(self) -> dict[str, bytes]:
        """The files of argocd/ that allow the kinds, as they have to be."""
        root, policy = self.args.root, read_policy(self.args.root)
        known = policy.environments
        if unknown := [name for name in self.args.env if name not in known]:
            raise Refused(f"--env {', '.join(unknown)}: no such environment of {POLICY_FILE}: {', '.join(known)}")
        environments = self.args.env or ([] if self.args.platform else known)
        made: dict[str, bytes] = {}
        wide = [name for name, scope in self.scopes.items() if scope == "Cluster"]
        if environments and wide:
            cli.say(
                f"{', '.join(wide)}: of the whole cluster, so of no environment; --platform allows it in {PLATFORM}/"
            )
        for project in environments:
            folder = applications.of_environment(policy, project).folder
            made |= dict(self._project(root, folder, project, ["Namespaced"]))
        for instance in applications.instances(policy) if self.args.platform else ():
            made |= dict(self._project(root, instance.folder, "platform", list(LISTS)))
        return made | self._parameters(root, policy, environments)

    def _project(self, root: Path, folder: str, project: str, scopes: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        path, text = project_file(root, folder, project)
        for name, scope in self.scopes.items():
            kind, _, group = name.partition(".")
            if scope not in scopes:
                continue
            if project != "platform" and (why := argocd.why_never(group, kind)):
                raise Refused(f"{name}: {why}")
            listed = mappings(at(yamledit.load(text, path), "spec", LISTS[scope]))
            if not any((at(each, "group"), at(each, "kind")) == (group, kind) for each in listed):
                text = yamledit.add_item(text, ("spec", LISTS[scope]), {"group": group, "kind": kind}, path)
        yield path, text

    def _parameters(self, root: Path, policy: Policy, environments: Sequence[str]) -> dict[str, bytes]:
        """Admission's lists of kinds that nobody looks into there: what they make is looked into."""
        paths = dict.fromkeys(layout.parameters(policy.at(name).cluster) for name in environments)
        return {path: self._named(text, path) for path in paths if (text := _read(root, path)) is not None}

    def _named(self, text: bytes, path: str) -> bytes:
        for name, scope in self.scopes.items():
            kind, _, group = name.partition(".")
            if scope != "Namespaced" or not admission.is_other(group, kind):
                continue
            if name not in str(at(yamledit.load(text, path), *OTHERS) or "").split():
                text = yamledit.add_word(text, OTHERS, name, path)
        return text


def project_file(root: Path, folder: str, name: str) -> tuple[str, bytes]:
    """The file of an AppProject of an Argo CD, with its text."""
    for file in sorted((root / folder).glob("*.yaml")):
        path, text = file.relative_to(root).as_posix(), file.read_bytes()
        found = yamledit.load(text, path) if b"kind: AppProject" in text else None
        if at(found, "metadata", "name") == name:
            return path, text
    raise Refused(f"{folder}/: no AppProject {name}; write one first")


def _read(root: Path, path: str) -> bytes | None:
    return (root / path).read_bytes() if (root / path).is_file() else None


if __name__ == "__main__":
    raise SystemExit(main())
