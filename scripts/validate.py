"""Check every manifest: it renders, its schema is closed and complete, and the repository's rules hold.

Exit code 0 means that everything was checked and nothing found; a missing schema or tool is a failure.

  python scripts/validate.py
  python scripts/validate.py --changed-since origin/cicd    report only on overlays that a change can affect, and check
                                                            the change itself, by the policy of that commit:
                                                            order, holds, withdrawals, removals
  python scripts/validate.py --root ../other-checkout --json
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from gitops import cli
from gitops.checks import (
    admission,
    answers,
    argocd,
    consistency,
    environments,
    exposure,
    isolation,
    keys,
    known,
    kserve,
    kubeconform,
    kubernetes,
    mend,
    metadata,
    owners,
    review,
    roles,
    sagemaker,
    sources,
    stacks,
    storage,
    transitions,
)
from gitops.checks.framework import Finding, Repository
from gitops.manifests import closure, definitions, kinds, kustomize, remembered, stack, workloads
from gitops.manifests.kinds import Kinds
from gitops.manifests.objects import Object
from gitops.repo import fleet, layout, snapshot
from gitops.repo.git import Git
from gitops.repo.policy import POLICY_FILE, read_policy
from gitops.repo.publish import BRANCH
from gitops.repo.snapshot import OnDisk

from contract.errors import Refused

REVIEW = (
    review.RULES
    | environments.RULES
    | answers.RULES
    | storage.RULES
    | argocd.RULES
    | admission.RULES
    | metadata.RULES
    | exposure.RULES
    | isolation.RULES
    | keys.RULES
    | kserve.RULES
    | kubernetes.RULES
    | roles.RULES
    | sagemaker.RULES
    | stacks.RULES
)
RULES = consistency.RULES | owners.RULES | known.RULES | stacks.PLACE_RULES | REVIEW


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, as_json=True)
    parser.add_argument("--changed-since", metavar="REF", help="report only what the changes since this commit affect")
    parser.add_argument(
        "--by", metavar="LOGIN", help="who proposes the change; the policy's automation releases, and no more"
    )
    parser.add_argument("--pushed", action="store_true", help="the change is on cicd already: print what takes it back")
    args = parser.parse_args(argv)
    if (args.by is not None or args.pushed) and not args.changed_since:
        parser.error("--by and --pushed go with --changed-since")
    return cli.run(validate, args)


def validate(args: argparse.Namespace) -> int:
    git, base = _base(args) if args.changed_since else (None, "")
    try:
        reported, summary = examine(args, git, base)
    except Refused:
        if args.pushed and git:
            _mend([mend.take_back(base, git.text("rev-parse", "HEAD"))])
        raise
    if args.json:
        cli.print_json([vars(finding) for finding in reported])
    for finding in reported:
        print(f"error: {finding}", file=sys.stderr)
    if args.pushed and git:
        _mend(mend.commands(git, base, git.text("rev-parse", "HEAD"), reported))
    if not reported and not args.json:
        print(summary)
    return 1 if reported else 0


def examine(args: argparse.Namespace, git: Git | None, base: str) -> tuple[list[Finding], str]:
    """The findings to report, and what was checked."""
    files = OnDisk(args.root)
    sources.require(files, git)
    added = kinds.read(args.root)
    with workloads.declared(added.pods), workloads.declared(_pods_at(git, base) if git else {}):
        return _examined(args, git, base, files, added)


def _pods_at(git: Git, base: str) -> dict[tuple[str, str], tuple[definitions.Steps, ...]]:
    """Where the kinds of a commit have their pods: what it deploys is looked into, whatever a change takes out."""
    text = snapshot.at(git, base).read(kinds.INDEX)
    # A change may be what mends it.
    with contextlib.suppress(Refused):
        return kinds.Kinds(kinds.listed({kinds.INDEX: text}) if text else {}).pods
    return {}


def _examined(
    args: argparse.Namespace, git: Git | None, base: str, files: OnDisk, added: Kinds
) -> tuple[list[Finding], str]:
    policy = read_policy(args.root)
    folders = layout.folders(args.root, policy)
    changed = git.changed(base) if git else []
    ran = transitions.ran_until(git, base, changed) if git else None
    before = fleet.at(git, base) if git else None
    there, reads = (before.renders, before.reads) if before else ({}, {})
    concerned = _concerned(git, base, changed, files, folders, reads) if git else folders
    same = there.keys() & set(folders).difference(concerned)
    known = {folder: reads[folder] for folder in same}
    other = [folder for folder in folders if folder not in same]
    sources.require_deployed(files, policy, {folder: closure.closure(files, folder) for folder in other})
    new = kustomize.rendered_all(args.root, other, files)
    renders = {folder: there[folder] if folder in same else new[folder] for folder in folders}
    if not git:
        # A look at everything renders it anew. Who judges a change then needs only what is another.
        remembered.put({kustomize.key(files, folder): items for folder, items in renders.items()})
    # What the platform and the projects of Argo CD allow is a matter of every overlay.
    chosen = folders if any(map(layout.is_of_argocd, concerned)) else concerned
    repository = Repository(args.root, policy, renders, frozenset(chosen), known, files, added)
    checked = {folder: renders[folder] for folder in concerned}
    checked[kinds.FOLDER] = list(added.definitions.values())
    with ThreadPoolExecutor(1) as pool:
        # Another process compiles the schemas meanwhile.
        schema = pool.submit(kubeconform.check, checked, repository.schemas)
        found = told(by_rules(repository), schema.result())
    if git and ran:
        unchanged = {folder: items for folder, items in renders.items() if folder not in concerned}
        rendered = _renders_at(git, base, {**there, **unchanged})
        found += transitions.check(git, base, changed, repository, rendered, ran, pushed=args.pushed)
        found += owners.check_automation(git, base, changed, args.by or "")
    asked = {*concerned, kinds.FOLDER}
    reported = [finding for finding in found if not finding.folders or asked.intersection(finding.folders)]
    objects = sum(len(renders[folder]) for folder in concerned)
    rules = len(RULES) + (len(transitions.RULES) if git else 0)
    return reported, f"{len(concerned)} renders with {objects} objects: schemas and {rules} rules hold"


def _mend(commands: Iterable[str]) -> None:
    for command in dict.fromkeys(commands):
        then = "" if command.endswith(f":refs/heads/{BRANCH}") else " and open a pull request"
        cli.say(f"to mend {BRANCH}, run this{then}: {command}")


def by_rules(repository: Repository) -> dict[str, list[Finding]]:
    """The findings of every rule of a single state of the repository, by its name."""
    return {name: list(rule(repository)) for name, rule in RULES.items()}


def told(found: Mapping[str, Sequence[Finding]], schema: Sequence[Finding]) -> list[Finding]:
    """Of what rules have found, by their names, all that is worth reading beside the findings of the schemas.

    What a reviewer asks is not asked of a render whose schema is wrong: a misspelled field would be found missing too.
    """
    broken = {folder for finding in schema for folder in finding.folders}
    kept = [
        finding
        for name, findings in found.items()
        for finding in findings
        if name not in REVIEW or broken.isdisjoint(finding.folders)
    ]
    return [*kept, *schema]


def _base(args: argparse.Namespace) -> tuple[Git, str]:
    git = Git(args.root)
    git.require_full_history()
    base = git.require_commit(args.changed_since, "--changed-since")
    if not git.is_ancestor(base, "HEAD"):
        raise Refused(
            f"--changed-since {args.changed_since}: has commits that are not in this branch, and what is judged is what"
            f" a merge would make; run `git merge {args.changed_since}` first"
        )
    return git, base


def _concerned(
    git: Git, base: str, changed: Sequence[str], files: OnDisk, folders: list[str], reads: Mapping[str, Collection[str]]
) -> list[str]:
    """The folders that a change can affect, given what they read before. The rules and schemas themselves are part of a
    change that touches them."""
    judging = ("scripts/", "tools/", f"{kinds.FOLDER}/")
    if any(path.startswith(judging) or path in (POLICY_FILE, admission.LOCK, stack.TEMPLATE) for path in changed):
        return folders
    suspects = [folder for folder in folders if folder not in reads]
    there = snapshot.at(git, base)
    deployed = {path for path in changed if path.partition("/")[0] in (*files.folders, *there.folders)}
    if not deployed.issubset(there.deployed()):
        # What is new may have been named before. A tree that is as it was committed can be searched for that.
        head = snapshot.at(git, git.commit("HEAD")).commit if git.is_committed(*files.folders) else None
        suspects = closure.suspects(head, folders, changed) if head else folders
    found = {folder for folder in folders if not set(changed).isdisjoint(reads.get(folder, ()))}
    found |= set(closure.readers(files, suspects, changed))
    return [folder for folder in folders if folder in found]


def _renders_at(git: Git, base: str, known: Mapping[str, list[Object]]) -> dict[str, list[Object]]:
    """What the overlays of a commit render. Of one that does not render then, what it last did on the way there: Argo
    CD leaves that running, and a change that mends the overlay could drop it.

    `known` has what they render then, as far as that is known.
    """
    there = snapshot.at(git, base)
    folders = layout.deployed(there.deployed(), there.policy)
    renders = {folder: known[folder] for folder in folders if folder in known}
    missing = [folder for folder in folders if folder not in known]
    for commit in _back_from(git, base) if missing else ():
        then = snapshot.at(git, commit)
        # Where there was no such folder, nothing of it ran.
        there_then = {path.rpartition("/")[0] for path in then.deployed()}
        missing = [folder for folder in missing if folder in there_then]
        with then.copied(missing) as tree:
            for folder in missing:
                with contextlib.suppress(Refused):
                    renders[folder] = kustomize.rendered(tree, folder)
        missing = [folder for folder in missing if folder not in renders]
        if not missing:
            break
    return renders


def _back_from(git: Git, base: str) -> Iterator[str]:
    """A commit, and then those before it that changed what is deployed. What a merge brought counts as a whole."""
    yield base
    yield from (change.commit for change in git.changes(base, *snapshot.at(git, base).folders) if change.commit != base)


if __name__ == "__main__":
    raise SystemExit(main())
