"""Add an environment to those that a release comes through, or remove one, with all that it has, in one commit.

`add` copies the overlays of another environment, with the new one's values in the fields that carry them and every app
unreleased, and makes its policy entry, project, ApplicationSet, admission and owners. What is guessed is listed, to be
looked through. `remove` takes the same away once nothing is released there. Nothing that runs is ever deleted: --finish
takes Argo CD's own objects out of the cluster and leaves what they made.

  python scripts/environment.py add perf --after staging --before prod
  python scripts/environment.py add prod-us --after staging --like prod --production --cluster us \\
      --account 444455556666 --region us-east-1 --host us.ml.example.com --pull-request
  python scripts/environment.py remove perf --push
  python scripts/environment.py remove perf --finish
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gitops import cli
from gitops.checks import admission, argocd, environments, exposure, isolation, storage
from gitops.checks.environments import Moved, Place
from gitops.checks.framework import Repository
from gitops.cluster import clusters
from gitops.manifests import closure, kustomize, yamledit
from gitops.manifests.objects import KUSTOMIZATION, at, listed, mappings
from gitops.manifests.yamledit import Named
from gitops.releases import hold, release_file, retired
from gitops.repo import applications, codeowners, entries, layout, publish, snapshot, values, ways
from gitops.repo.entries import Edited, Entry
from gitops.repo.git import Git
from gitops.repo.layout import CODEOWNERS
from gitops.repo.policy import IN_CLUSTER, POLICY_FILE, Policy, parse_policy
from gitops.repo.publish import Draft, Way
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused
from contract.uri import REPLICA

Files = dict[str, bytes | None]
NAME = re.compile(r"[a-z]([a-z0-9-]{0,58}[a-z0-9])?")
SPACES = (
    "spec", "matchResources", "namespaceSelector", "matchExpressions",
    Named("kubernetes.io/metadata.name", ("key",)), "values",
)  # fmt: skip
LITERALS = ("configMapGenerator", Named("variables"), "literals")
# The patch by which the container that fetches models reads a replica.
FETCHED = (
    "target:", "  kind: ClusterStorageContainer", "patch: |-", "  - op: add", "    path: /spec/container/env/-",
    "    value: {{name: {replica}, value: {bucket}}}",
)  # fmt: skip
LEADS = ("  - ", *["    "] * (len(FETCHED) - 1))
# What a copy takes over of the other's entry where no option gives it.
COPIED = ("owners", "internet_facing", "cluster", "account", "region", "freeze")
OPTIONS = ("namespace", "cluster", "account", "region", "replica", "soak")
ORDER = ("name", "after", "owners", "hosts", "internet_facing", "production", *OPTIONS, "freeze")
# What the result has to keep to before it is written anywhere.
RULES = (
    environments.RULES
    | argocd.RULES
    | admission.RULES
    | exposure.RULES
    | isolation.RULES
    | {storage.REPLICA_RULE: storage.check_replica}
)
SET, PROJECT, APPLICATION = (("argoproj.io/v1alpha1", kind) for kind in ("ApplicationSet", "AppProject", "Application"))


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("do", choices=("add", "remove"), help="what to do")
    parser.add_argument("name", metavar="NAME", help="the environment")
    parser.add_argument("--after", type=names, metavar="ENV[,ENV]", help="those that a release comes through before")
    parser.add_argument(
        "--before", type=names, default=[], metavar="ENV[,ENV]", help="those that come after it from now on"
    )
    parser.add_argument("--like", metavar="ENV", help="the environment to copy (default: the first of --after)")
    parser.add_argument("--cluster", help="its cluster, one of the policy's (default: the other's)")
    parser.add_argument("--namespace", help="its namespace (default: ml-NAME)")
    parser.add_argument("--account", help="its account of AWS (default: the other's)")
    parser.add_argument("--region", help="its region of AWS (default: the other's)")
    parser.add_argument("--replica", metavar="BUCKET", help="the bucket, one of the policy's replicas, that it reads")
    parser.add_argument("--production", action="store_true", help="it is production")
    parser.add_argument("--host", action="append", metavar="DOMAIN", help="what its hosts are below; repeatable")
    parser.add_argument("--soak", metavar="DURATION", help="how long a release runs there before it goes on, as 24h")
    ways.add_options(parser, "the same as --pull-request")
    parser.add_argument(
        "--finish", action="store_true", help="after a removal is merged: delete Argo CD's objects of it"
    )
    clusters.add_options(parser.add_argument_group("for --finish"))
    args = parser.parse_args(argv)
    given = [word for word in ("after", "before", "like", "production", "host", *OPTIONS) if getattr(args, word)]
    if args.do == "add" and not args.after:
        parser.error("add goes with --after")
    if args.do == "remove" and given:
        parser.error(f"--{given[0]} goes with add")
    if args.finish and (args.do == "add" or args.way):
        parser.error("--finish goes with remove, and with no way of publishing")
    return cli.run(finish if args.finish else change, args)


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def change(args: argparse.Namespace) -> None:
    git = Git(args.root)
    publish.require_clean(git)
    told: dict[str, list[str]] = {}

    def build(base: str) -> Draft | None:
        there = snapshot.at(git, base)
        made, edited, guessed = added(there, args) if args.do == "add" else removed(there, args.name)
        new = {path: text for path, text in made.items() if text != there.read(path)}
        told.update(files=sorted(new), guessed=guessed, moved=[shown(each) for each in edited.moved.items()])
        if not new:
            return None
        policy, verb = parse_policy(edited.text), {"add": "Add", "remove": "Remove"}[args.do]
        lines = [f"{verb} the environment {args.name}", "", *told["moved"]]
        draft = Draft(git.tree_with(base, new), "\n".join(lines).rstrip() + "\n")
        require_right(snapshot.at(git, git.draft(draft.tree, base, draft.message)), policy, args)
        return draft

    asked = ways.chosen(args, git, Way.BRANCH, push=Way.PULL_REQUEST)
    published = publish.publish(git, build, asked, lambda: f"environment/{args.do}-{args.name}")
    if args.json:
        cli.print_json(ways.as_json(git, published) | {"environment": args.name} | told)
        return
    for line in [*told["files"], *[f"to be looked at: {each}" for each in told["guessed"]], *told["moved"]]:
        print(line)
    nothing = f"{args.name} is {'as it would be made' if args.do == 'add' else 'no environment of the policy'}"
    ways.tell(git, published, [f"{args.do} the environment {args.name}"], nothing)
    if published.subject and not args.dry_run:
        for line in following(args):
            cli.say(line)


def shown(moved: tuple[str, Sequence[str]]) -> str:
    return f"{moved[0]} now comes after {', '.join(moved[1])}."


def following(args: argparse.Namespace) -> list[str]:
    """What comes after the merge."""
    if args.do == "add":
        return ["when that is merged, every app is unreleased there until promote_model.py brings it a release"]
    return [
        f"when that is merged, the cluster still has the ApplicationSets of {args.name}, their Applications, the"
        f" AppProject {args.name} and the namespace with all in it: nothing is pruned",
        f"then take Argo CD's objects away: python scripts/environment.py remove {args.name} --finish",
    ]


def require_right(made: Snapshot, policy: Policy, args: argparse.Namespace) -> None:
    """Raises Refused where the result would not hold to the rules: nothing is written then."""
    folders = layout.deployed(made.deployed(), policy)
    # All that gets models by one container.
    near = policy.on(policy.at(args.name).cluster) if args.do == "add" and policy.at(args.name).replica else [args.name]
    own = [folder for folder in folders if folder.split("/")[1] in near]
    with made.exported() as tree:
        rendered = kustomize.rendered_all(tree, [*own, *layout.of_clusters(policy)])
        # Of the others only their names count here: no file of theirs is changed.
        renders = {**{folder: [] for folder in folders}, **rendered}
        repository = Repository(tree, policy, renders, frozenset(rendered))
        told = [finding for rule in RULES.values() for finding in rule(repository)]
    # That others are empty here is no fault of theirs.
    found = [finding for finding in told if not finding.folders or rendered.keys() & set(finding.folders)]
    if found:
        raise Refused(*dict.fromkeys(map(str, found)))


# A new environment


def added(there: Snapshot, args: argparse.Namespace) -> tuple[Files, Edited, list[str]]:
    """The files of the new environment, the policy with it, and what is guessed, one a line."""
    policy, text, like = there.policy, required(there, POLICY_FILE), args.like or args.after[0]
    require_names(policy, args, like)
    known = {each["name"]: each for each in entries.read(text)}
    entry = entry_of(args, policy, known[like])
    if args.name in known:
        if known[args.name] == entry:
            return {}, Edited(text, {}), []
        raise Refused(
            f"{POLICY_FILE}: environments: {args.name}: there already, otherwise than asked; take another name"
        )
    if left := there.files(f"overlays/{args.name}"):
        raise Refused(f"{left[0]}: there already, of no environment; remove overlays/{args.name} first")
    edited = entries.add(text, entry, args.before)
    new = parse_policy(edited.text)
    moved = Moved(new, (like, place(there, policy, like)), (args.name, place(there, new, args.name)), apps(there))
    copied = overlays(there, like, args.name, moved)
    copied |= variables(copied, args.name, policy.at(like).replica, new.at(args.name).replica)
    guessed = [*assumed(edited.text, args)]
    guessed += [line for path, data in copied.items() for line in differing(there, path, data, like, args.name)]
    made: Files = {**copied, **of_argocd(there, new, like, args.name), **admitted(there, new), **owned(there, new)}
    made |= fetching(there, new, new.at(args.name).cluster)
    return {**made, POLICY_FILE: edited.text}, edited, guessed


def require_names(policy: Policy, args: argparse.Namespace, like: str) -> None:
    if not NAME.fullmatch(args.name) or yamledit.needs_quotes(args.name):
        rule = "small letters, digits and -, a letter first and no - last, at most 60, no word of YAML"
        raise Refused(f"{args.name!r}: no name for an environment; take {rule}")
    if args.name in applications.PROJECTS:
        raise Refused(f"{args.name!r}: the name of another project of Argo CD; take another name")
    for option, found in (("after", args.after), ("like", [like])):
        if unknown := [each for each in found if each not in policy.environments]:
            known = ", ".join(policy.environments)
            raise Refused(f"--{option} {unknown[0]}: no environment of {POLICY_FILE}, which has {known}")


def entry_of(args: argparse.Namespace, policy: Policy, like: Entry) -> Entry:
    """The policy's entry, in the order in which its fields are written."""
    found: dict[str, Any] = {field: like[field] for field in COPIED if field in like}
    if like.get("replica") and args.region in (None, like.get("region")):
        found["replica"] = like["replica"]
    found |= {option: value for option in OPTIONS if (value := getattr(args, option))}
    if found.get("cluster") == IN_CLUSTER:
        del found["cluster"]
    found |= {"name": args.name, "after": args.after}
    domains = [domain_of(policy, like["name"], args.name, each) for each in like.get("hosts", ())]
    if hosts := args.host or domains:
        found["hosts"] = hosts
    if args.production:
        found["production"] = True
    return {field: found[field] for field in ORDER if field in found}


def domain_of(policy: Policy, like: str, name: str, domain: str) -> str:
    """The domain of an environment, made of another's: its name in the place of the other's, or before all of it."""
    found = environments.Names(policy).words(domain)
    return re.sub(rf"(?<![a-z0-9]){re.escape(like)}(?![a-z0-9])", name, domain) if like in found else f"{name}.{domain}"


def place(there: Snapshot, policy: Policy, environment: str) -> Place:
    """Where an environment is, by the policy or by its overlays."""
    known, exposed = policy.at(environment), policy.exposure.get(environment)
    found = {name: getattr(known, name) or written(there, environment, name) for name in ("account", "region")}
    return Place(exposed.hosts if exposed else (), **found)


def written(there: Snapshot, environment: str, name: str) -> str:
    try:
        return values.find(there, name, environment)
    except Refused:
        return ""


def apps(there: Snapshot) -> list[str]:
    return layout.apps_of(there.deployed())


def required(there: Snapshot, path: str) -> bytes:
    if (text := there.read(path)) is None:
        raise Refused(f"{path}: missing; take it from the template")
    return text


def overlays(there: Snapshot, like: str, name: str, moved: Moved) -> Files:
    """The overlays of another environment as the new one's, with every app unreleased and nothing held."""
    made: Files = {}
    for path in there.files(f"overlays/{like}"):
        if layout.is_retirements(path) or path.endswith(f"/{hold.FILE}"):
            continue
        text = required(there, path)
        target = f"overlays/{name}/{path.removeprefix(f'overlays/{like}/')}"
        if (found := layout.place(path)) and path in layout.release_paths(*found):
            for release in [each for each in release_file.read_all(there.read, *found) if each.file == path]:
                text = release_file.clear(text, release)
        made[target] = rewritten(text, path, moved, like, name)
    return made


def rewritten(text: bytes, path: str, moved: Moved, like: str, name: str) -> bytes:
    if path.endswith((".yaml", ".yml")):
        text = yamledit.rewrite(text, moved, path)
        comment = re.compile(rf"(#.*\b(?:of|in) ){re.escape(like)}(?![\w-])".encode())
        return comment.sub(lambda match: match[1] + name.encode(), text)
    try:
        return moved("", text.decode()).encode()
    except UnicodeDecodeError:
        return text


def assumed(text: bytes, args: argparse.Namespace) -> Iterator[str]:
    """The lines of the policy's entry that no option gave."""
    given = {"name", "after", *(option for option in (*OPTIONS, "production") if getattr(args, option))}
    given |= {"hosts"} if args.host else set()
    inside = False
    for number, line in enumerate(text.decode().splitlines(), 1):
        field, _, value = line.strip().removeprefix("- ").partition(": ")
        inside = value == args.name if field == "name" else inside
        if inside and field.rstrip(":") in ORDER and field.rstrip(":") not in given:
            yield f"{POLICY_FILE}: line {number}: {line.strip()}"


def differing(there: Snapshot, path: str, data: bytes | None, like: str, name: str) -> Iterator[str]:
    """The lines of a copy that are others than before, and no namespace, comment or release."""
    old = (there.read(path.replace(f"overlays/{name}/", f"overlays/{like}/", 1)) or b"").decode(errors="replace")
    found = layout.place(path)
    if found and path in layout.release_paths(*found)[:1]:
        return
    lines = zip(old.splitlines(), (data or b"").decode(errors="replace").splitlines(), strict=False)
    for number, (before, after) in enumerate(lines, 1):
        line = after.strip()
        if before != after and not line.startswith(("#", "namespace:")):
            yield f"{path}: line {number}: {line}"


def of_argocd(there: Snapshot, policy: Policy, like: str, name: str) -> Files:
    """The project and the ApplicationSets, with the kinds and the paths of another environment's, listed beside
    them."""
    project = applications.project_file
    allowed = at(yamledit.load(required(there, project(policy, like)), like), "spec", "namespaceResourceWhitelist")
    kinds = [(str(each["group"]), str(each["kind"])) for each in mappings(allowed)]
    source = values.find(there, "repo")
    made: Files = {
        project(policy, name): applications.project_text(policy, name, source, kinds).encode(),
    }
    sets, theirs = (applications.set_files(policy, each) for each in (name, like))
    for which, file in sets.items():
        text = applications.text(policy, name, source, which).encode()
        made[file] = with_paths(required(there, theirs[which]), text, file)
    path = f"{applications.of_environment(policy, name).folder}/{KUSTOMIZATION}"
    files = [str(each) for each in listed(yamledit.load(required(there, path), path).get("resources"))]
    pairs = [(sets[which], theirs[which]) for which in sets]
    for pair in (*pairs, (project(policy, name), project(policy, like))):
        new, beside = (Path(file).name for file in pair)
        files.insert(files.index(beside) + 1 if beside in files else len(files), new)
    return made | {path: yamledit.set_list(required(there, path), ("resources",), files, path)}


def with_paths(like: bytes, text: bytes, path: str) -> bytes:
    """An ApplicationSet with the paths that another environment's lists behind those of the template."""
    where = applications.SET_PATHS
    theirs, base = (str(at(yamledit.load(each, path), *where) or "") for each in (like, text))
    return yamledit.edit(text, {where: theirs}, path) if theirs.startswith(f"{base};") else text


def admitted(there: Snapshot, policy: Policy) -> Files:
    """Where each cluster refuses by itself, and where it takes images by digest alone."""
    made: Files = {}
    for cluster in (IN_CLUSTER, *policy.clusters):
        bindings, parameters = layout.bindings(cluster), layout.parameters(cluster)
        made[bindings] = bound(required(there, bindings), policy, cluster)
        made[parameters] = admission.parameters_text(required(there, parameters), policy, cluster)
    return made


def variables(copied: Files, name: str, old: str, new: str) -> Files:
    """What the apps of an environment have in common, with the replica that they read in the place of another's."""
    path = f"overlays/{name}/shared/{KUSTOMIZATION}"
    text = copied.get(path)
    if old == new or text is None:
        return {}
    found = yamledit.load(text, path)
    for where, form, values_there in (
        (("components",), "../../../base/environment/replica", listed(found.get("components"))),
        (LITERALS, f"{REPLICA}={{}}", listed(literals(found))),
    ):
        kept = [str(each) for each in values_there if each != form.format(old)]
        text = yamledit.set_list(text, where, kept, path)
        text = yamledit.add_entry(text, where, len(kept), [form.format(new)], path) if new else text
    return {path: text}


def literals(kustomization: Any) -> Any:
    made = [each for each in mappings(at(kustomization, "configMapGenerator")) if each.get("name") == "variables"]
    return made[0].get("literals") if made else None


def fetching(there: Snapshot, policy: Policy, cluster: str) -> Files:
    """What fetches the models of a cluster's stock KServe servers, from the replica that its environments have in
    common, or from the model bucket."""
    path = f"{layout.platform(cluster)}/{KUSTOMIZATION}"
    text, wanted = required(there, path), {policy.at(name).replica for name in policy.on(cluster)} or {""}
    if len(wanted) > 1:
        return {}  # a matter of the rule `replica`: without such servers nothing is wrong
    patches = mappings(at(yamledit.load(text, path), "patches"))
    own = [number for number, each in enumerate(patches) if REPLICA in str(each.get("patch"))]
    bucket = wanted.pop()
    if [f"value: {bucket}}}" in str(patches[number]["patch"]) for number in own] == [True] * bool(bucket):
        return {}
    for number in reversed(own):
        text = yamledit.remove_entry(text, ("patches",), number, path)
    if bucket:
        lines = [line.format(replica=REPLICA, bucket=bucket) for line in FETCHED]
        kept = len(patches) - len(own)
        if kept:
            text = yamledit.add_entry(text, ("patches",), kept, lines, path)
        else:
            whole = "".join(f"{lead}{line}\n" for lead, line in zip(LEADS, lines, strict=True))
            text = text.rstrip() + f"\n\npatches:\n{whole}".encode()
    return {path: text}


def bound(text: bytes, policy: Policy, cluster: str) -> bytes:
    """The bindings of a cluster. Those that have had no namespace, or have none any more, are of another form."""
    file, spaces = layout.bindings(cluster), [policy.namespace(name) for name in policy.on(cluster)]
    try:
        return (
            yamledit.set_list(text, SPACES, spaces, file)
            if spaces
            else admission.bindings_text(policy, cluster).encode()
        )
    except Refused:
        return admission.bindings_text(policy, cluster).encode()


def owned(there: Snapshot, policy: Policy) -> Files:
    """Who approves, where that file is made from the policy."""
    found, made = (there.read(CODEOWNERS) or b"").decode(errors="replace"), codeowners.text(policy)
    return {CODEOWNERS: made.encode()} if made and codeowners.is_made(found) else {}


# An environment that goes


def removed(there: Snapshot, name: str) -> tuple[Files, Edited, list[str]]:
    """What is taken away, and the policy without the environment. Raises Refused while something stands in the way."""
    policy, text = there.policy, required(there, POLICY_FILE)
    if name not in policy.environments:
        if any(there.files(f"overlays/{name}")):
            raise Refused(
                f"overlays/{name}: there, and no environment of {POLICY_FILE}; remove the folder by a pull request"
            )
        return {}, Edited(text, {}), []
    require_unused(there, name)
    edited = entries.remove(text, name)
    new = parse_policy(edited.text)
    made: Files = dict.fromkeys(there.files(f"overlays/{name}"))
    instance = applications.of_environment(policy, name)
    path = f"{instance.folder}/{KUSTOMIZATION}"
    own = [*applications.set_files(policy, name).values(), applications.project_file(policy, name)]
    files = [str(each) for each in listed(yamledit.load(required(there, path), path).get("resources"))]
    kept = [file for file in files if f"{instance.folder}/{file}" not in own]
    made[path] = yamledit.set_list(required(there, path), ("resources",), kept, path)
    made |= {**dict.fromkeys(file for file in own if there.read(file) is not None), **admitted(there, new)}
    made |= fetching(there, new, policy.at(name).cluster)
    return {**made, **owned(there, new), POLICY_FILE: edited.text}, edited, list(retirements(there, name))


def retirements(there: Snapshot, name: str) -> Iterator[str]:
    """What was retired there, and goes from the cluster only while its record is there."""
    path = retired.path(name)
    for app in sorted(retired.read(there.read(path), path)):
        finish = f"python scripts/retire_app.py --app {app} --env {name} --finish"
        yield f"{path}: {app} may still run; before this is merged: {finish}"


def require_unused(there: Snapshot, name: str) -> None:
    policy, folder = there.policy, f"overlays/{name}"
    where = f"{POLICY_FILE}: environments: {name}"
    if name == policy.first:
        raise Refused(f"{where}: the first, where releases come in; put another one before it, and then remove it")
    if policy.production == (name,):
        raise Refused(f"{where}: the only production; write `production: true` for another environment first")
    faults = []
    files = there.files(folder)
    for app in dict.fromkeys(found[0] for found in map(layout.place, files) if found):
        running = (
            [each for each in release_file.read_all(there.read, app, name) if each.released]
            if app not in layout.OF_ENVIRONMENT
            else []
        )
        if running:
            remedy = f"python scripts/retire_app.py --app {app} --env {name} --reason REASON"
            faults.append(f"{layout.overlay(app, name)}: {running[0].version} is released; retire it first: {remedy}")
        elif there.read(hold.path(app, name)) is not None:
            faults.append(f"{hold.path(app, name)}: held; retire the app, or end the hold, first")
    for other in [each for each in layout.deployed(there.deployed(), policy) if not each.startswith(f"{folder}/")]:
        if used := sorted(closure.closure(there.commit or there.root, other) & set(files)):
            faults.append(f"{other}: reads {used[0]}; give it a file of its own first")
    if faults:
        raise Refused(*faults)


# What Argo CD has of it


def finish(args: argparse.Namespace) -> None:
    """Deletes Argo CD's objects of an environment whose removal is merged, and nothing that they made."""
    git, name = Git(args.root), args.name
    if git.has_remote(publish.REMOTE):
        git.fetch(publish.REMOTE, publish.BRANCH)
    tip = publish.tip(git)
    if name in snapshot.at(git, tip).policy.environments:
        raise Refused(f"{POLICY_FILE}: environments: {name}: still on {publish.BRANCH}; merge its removal first")
    before = last_policy(git, tip, name)
    cluster = clusters.asked(args, before).argocd(name)
    space = applications.NAMESPACE
    made = [each for each in cluster.list(*APPLICATION, space) if at(each, "spec", "project") == name]
    gone = [
        *[(*SET, applications.set_name(name, which)) for which in applications.TEMPLATES],
        *[(*APPLICATION, str(at(each, "metadata", "name"))) for each in made],
        (*PROJECT, name),
    ]
    gone = [each for each in gone if cluster.get(*each, space) is not None]
    if not args.dry_run:
        # With a finalizer of Argo CD's, all that it made would go along.
        for each in gone:
            cluster.patch(*each, space, {"metadata": {"finalizers": None}})
        for each in gone:
            cluster.delete(*each, space)
    if args.json:
        cli.print_json(
            {"environment": name, "deletes": [f"{kind} {each}" for _, kind, each in gone], "dry_run": args.dry_run}
        )
        return
    for _, kind, each in gone:
        print(f"- {kind} {each}")
    kept = f"the namespace {before.namespace(name)} of the cluster {before.at(name).cluster} and all in it stay"
    cli.say(f"{'would delete' if args.dry_run else 'deleted'} these; {kept}" if gone else f"nothing to delete; {kept}")


def last_policy(git: Git, tip: str, name: str) -> Policy:
    """The newest policy that had an environment. Raises Refused where none had."""
    for found in git.changes(tip, POLICY_FILE):
        for commit in (found.commit, f"{found.commit}^"):
            text = git.show(commit, POLICY_FILE) if git.commit(commit) else None
            policy = parse_policy(text) if text else None
            if policy and name in policy.environments:
                return policy
    raise Refused(f"{POLICY_FILE}: {name!r}: no environment now or before; only what was removed is taken away")


if __name__ == "__main__":
    raise SystemExit(main())
