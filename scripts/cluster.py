"""Add a cluster to those that this repository deploys to, or remove one: policy entry, folders and Applications.

Environments are put on it by `cluster` in overlays/promotion.yaml. With `--argocd hub` the Argo CD that there is serves
the new cluster, too; with `--argocd own` one runs in it and takes this repository by itself. The change is one commit,
in a branch of its own or as the option has it. What is there already stays, so `add` also writes what is missing.

  python scripts/cluster.py add eu --argocd hub --region eu-central-1 --pull-request
  python scripts/cluster.py add us --argocd own --account 444455556666 --region us-east-1 --push
  python scripts/cluster.py remove eu --pull-request
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gitops import cli
from gitops.checks import admission
from gitops.manifests import documents, yamledit
from gitops.manifests.objects import KUSTOMIZATION, at, listed, mappings
from gitops.repo import applications, layout, publish, snapshot, values, ways
from gitops.repo.applications import SERVER, Instance
from gitops.repo.git import Git
from gitops.repo.layout import ARGOCD, PLATFORM
from gitops.repo.policy import IN_CLUSTER, POLICY_FILE, Policy, parse_policy
from gitops.repo.publish import Draft, Way
from gitops.repo.snapshot import Snapshot

from contract.errors import Refused

NAME = re.compile(r"[a-z]([a-z0-9-]{0,58}[a-z0-9])?")
ACCOUNT, REGION = re.compile(r"[0-9]{12}"), re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")
LIST = f"{PLATFORM}/{KUSTOMIZATION}"
DESTINATIONS, WIDE = ("spec", "destinations"), ("spec", "clusterResourceWhitelist")
# Of the components of the hub's own cluster, what is not of add-ons.
OWN_OBJECTS, OF_ARGOCD = ("admission", "storage"), ("argo-cd", "fleet")
# Parameters of admission and the storage container are in this namespace, whether an Argo CD is in it or not.
SPACE = {"group": "", "kind": "Namespace", "name": applications.NAMESPACE}

Files = dict[str, bytes | None]


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("do", choices=("add", "remove"), help="what to do")
    parser.add_argument("name", metavar="NAME", help="the cluster, as Argo CD and the contexts of kubeconfig call it")
    parser.add_argument("--argocd", choices=("hub", "own"), help="who serves it (default: hub)")
    parser.add_argument("--account", help="its account of AWS (default: that of the hub's cluster)")
    parser.add_argument("--region", help="its region of AWS (default: that of the hub's cluster)")
    ways.add_options(parser, "the same as --pull-request")
    args = parser.parse_args(argv)
    if args.do == "remove" and (args.argocd or args.account or args.region):
        parser.error("--argocd, --account and --region go with add")
    return cli.run(change, args)


def change(args: argparse.Namespace) -> None:
    git = Git(args.root)
    require_values(args)
    publish.require_clean(git)
    verb = {"add": "Add", "remove": "Remove"}[args.do]
    changed: list[str] = []
    served_by: dict[str, str] = {}

    def build(base: str) -> Draft | None:
        there = snapshot.at(git, base)
        made = added(there, args) if args.do == "add" else removed(there, args.name)
        new = {path: text for path, text in made.items() if text != there.read(path)}
        changed[:] = sorted(new)
        served_by.update(parse_policy(made.get(POLICY_FILE) or required(there, POLICY_FILE)).clusters)
        return Draft(git.tree_with(base, new), f"{verb} the cluster {args.name}\n") if new else None

    asked = ways.chosen(args, git, Way.BRANCH, push=Way.PULL_REQUEST)
    published = publish.publish(git, build, asked, lambda: f"cluster/{args.do}-{args.name}")
    if args.json:
        cli.print_json(ways.as_json(git, published) | {"cluster": args.name, "files": changed})
        return
    for path in changed:
        print(path)
    nothing = f"{args.name} is {'as it has to be' if args.do == 'add' else 'no cluster of the policy'}"
    ways.tell(git, published, [f"{args.do} the cluster {args.name}"], nothing)
    if published.subject and not args.dry_run:
        for line in following(args, served_by.get(args.name)):
            cli.say(line)


def following(args: argparse.Namespace, way: str | None) -> list[str]:
    """What comes after the merge; `way` is who serves a cluster that was added."""
    if args.do == "remove":
        return [
            f"when that is merged, nothing of {args.name} is deleted: delete the Applications of the cluster in Argo CD"
            " without their resources, and then the cluster itself"
        ]
    own = f" --cluster {args.name}" if way == "own" else ""
    return [
        f"when that is merged: `python scripts/bootstrap.py{own}`, with a context {args.name} in the kubeconfig",
        f"then put environments on it, by `cluster: {args.name}` in {POLICY_FILE}",
    ]


def require_values(args: argparse.Namespace) -> None:
    if not NAME.fullmatch(args.name) or yamledit.needs_quotes(args.name) or args.name == IN_CLUSTER:
        rule = "small letters, digits and -, a letter first and no - last, at most 60, no word of YAML"
        raise Refused(f"{args.name!r}: no name for a cluster; take {rule}, and not {IN_CLUSTER}")
    for option, pattern, like in (("account", ACCOUNT, "444455556666"), ("region", REGION, "eu-central-1")):
        if (value := getattr(args, option)) is not None and not pattern.fullmatch(value):
            raise Refused(f"--{option} {value}: none of AWS; write one such as {like}")


# A new cluster


def added(there: Snapshot, args: argparse.Namespace) -> Files:
    """The files that have to be there, as they have to be; what is there already stays."""
    name, way = args.name, args.argocd or there.policy.clusters.get(args.name, "hub")
    if (known := there.policy.clusters.get(name, way)) != way:
        raise Refused(f"--argocd {way}: {POLICY_FILE} has the cluster {name} with `argocd: {known}`; remove it first")
    text = required(there, POLICY_FILE)
    if name not in there.policy.clusters:
        text = yamledit.add_item(text, ("clusters",), {"name": name, "argocd": way}, POLICY_FILE, new=True)
    policy = parse_policy(text)
    instance = next(each for each in applications.instances(policy) if name in each.clusters)
    require_free(there, policy, instance)
    made = kustomizations(there, args, way) | admitted(there, policy, name)
    made |= served(there, instance, name) if way == "hub" else alone(there, instance)
    kept = {path: there.read(path) or data for path, data in made.items()}
    edited = joined(there, name) if way == "hub" else {}
    return {**kept, **edited, POLICY_FILE: text}


def require_free(there: Snapshot, policy: Policy, instance: Instance) -> None:
    """Raises Refused where an app has the name of one of the Applications that are to be."""
    environments = instance.environments(policy)
    for folder in layout.deployed(there.deployed(), policy):
        if folder.split("/")[1] in environments and (name := applications.name(folder)) in instance.taken():
            raise Refused(f"{folder}: its Application is {name}, as one of the cluster would be; take another name")


def required(there: Snapshot, path: str) -> bytes:
    text = there.read(path)
    if text is None:
        raise Refused(f"{path}: missing; take it from the template, with what it lists")
    return text


def components(there: Snapshot) -> list[str]:
    """Those that the hub's own cluster has."""
    found = [str(each) for each in listed(at(yamledit.load(required(there, LIST), LIST), "components"))]
    if missing := [each for each in OWN_OBJECTS if each not in found]:
        raise Refused(f"{LIST}: components: no {missing[0]}; list what the template lists, so that clusters share it")
    return found


def kustomizations(there: Snapshot, args: argparse.Namespace, way: str) -> Files:
    """What lists all that the cluster has."""
    found, values_of_aws = components(there), b""
    if "aws" in found:
        values_of_aws = aws(there, args)
    elif args.account or args.region:
        raise Refused(f"--{'account' if args.account else 'region'}: no component aws in {LIST}, which would take it")
    patches = ["aws.yaml"] if values_of_aws else []
    name, platform, addons = args.name, layout.platform(args.name), layout.addons(args.name)
    own = ["admission/bindings.yaml", "admission/parameters.yaml"]
    if way == "own":
        made: Files = {f"{platform}/{KUSTOMIZATION}": listing(f"The cluster {name} itself.", own, found, patches)}
        return made | ({f"{platform}/aws.yaml": values_of_aws} if patches else {})
    # What installs Knative is an add-on, and what is to be installed of it an object of the cluster.
    split = {"knative": ("knative/operator", "knative/serving")}
    others = [each for each in found if each not in (*OWN_OBJECTS, *OF_ARGOCD)]
    brought = [split.get(each, (each, ""))[0] for each in others]
    objects = [*OWN_OBJECTS, *[split[each][1] for each in others if each in split]]
    head = f"The cluster {name} itself; its add-ons are in ../addons/."
    space = documents.text([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE["name"]}}])
    made = {
        f"{platform}/namespace.yaml": f"# Of the values that admission needs.\n{space}".encode(),
        f"{platform}/{KUSTOMIZATION}": listing(head, ["namespace.yaml", *own], objects, []),
        f"{addons}/{KUSTOMIZATION}": listing(
            f"The add-ons of the cluster {name}, as Applications of the hub.", [], [*brought, "served"], patches, name
        ),
    }
    return made | ({f"{addons}/aws.yaml": values_of_aws} if patches else {})


DESTINATION = """\
  - target: {{kind: Application}}
    patch: |
      - op: remove
        path: /spec/destination/server
      - op: add
        path: /spec/destination/name
        value: {}
"""


def listing(
    head: str, resources: Sequence[str], parts: Sequence[str], patches: Sequence[str], cluster: str = ""
) -> bytes:
    """A kustomization; with a cluster, of Applications that go there."""
    text = f"# {head}\napiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
    text += f"\nnameSuffix: -{cluster}\n" if cluster else ""
    up = "../" * 3 + PLATFORM.rpartition("/")[2]
    for field, lines in (("resources", resources), ("components", [f"{up}/{part}" for part in parts])):
        text += f"\n{field}:\n" + "".join(f"  - {line}\n" for line in lines) if lines else ""
    if patches or cluster:
        text += "\npatches:\n" + "".join(f"  - path: {path}\n" for path in patches)
    return (text + (DESTINATION.format(cluster) if cluster else "")).encode()


def aws(there: Snapshot, args: argparse.Namespace) -> bytes:
    """A patch for each add-on of AWS, with the values that are others on this cluster."""
    files = [path for path in there.files(f"{PLATFORM}/aws") if not path.endswith(KUSTOMIZATION)]
    texts = {path: required(there, path) for path in files}
    named = re.search(rb"clusterName: (\S+)", b"\n".join(texts.values()))
    current = values.found(there) | ({"cluster": named[1].decode()} if named else {})
    wanted = {"cluster": args.name, "account": args.account, "region": args.region}
    replaced = values.replacing(current, {name: value for name, value in wanted.items() if value})
    patches = []
    for path, text in texts.items():
        before, after = yamledit.load(text, path), yamledit.load(replaced(text), path)
        if before != after:
            kept = {field: before[field] for field in ("apiVersion", "kind")}
            kept["metadata"] = {"name": at(before, "metadata", "name"), "namespace": applications.NAMESPACE}
            patches.append(kept | differing(before, after))
    head = "# What the add-ons of AWS have otherwise on this cluster.\n"
    return (head + documents.text(patches)).encode() if patches else b""


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What a strategic merge patch has to set: lists whole, as a patch of a custom resource replaces them."""
    found = {}
    for key, value in after.items():
        if isinstance(value, dict) and value != before[key]:
            found[key] = differing(before[key], value)
        elif value != before[key]:
            found[key] = value
    return found


def admitted(there: Snapshot, policy: Policy, name: str) -> Files:
    """Where and by which values the cluster refuses."""
    hub = layout.parameters(IN_CLUSTER)
    return {
        layout.bindings(name): admission.bindings_text(policy, name).encode(),
        layout.parameters(name): admission.parameters_text(required(there, hub), policy, name),
    }


# Served by the hub


def served(there: Snapshot, instance: Instance, name: str) -> Files:
    """The Applications by which the hub takes what the cluster has."""
    source = values.find(there, "repo")
    comments = {
        f"platform-{name}": f"what the cluster {name} refuses and verifies by itself",
        f"addons-{name}": f"the add-ons of the cluster {name}",
    }
    return {
        f"{ARGOCD}/{each}.yaml": applications.application_text(instance, each, source, comment).encode()
        for each, comment in comments.items()
    }


def joined(there: Snapshot, name: str) -> Files:
    """The files of the hub that name what it takes and where to."""
    hub = f"{ARGOCD}/{KUSTOMIZATION}"
    made: Files = {hub: with_items(there, hub, ("resources",), [f"platform-{name}.yaml", f"addons-{name}.yaml"])}
    for project in ("addons", "platform"):
        path = f"{ARGOCD}/project-{project}.yaml"
        found = mappings(at(yamledit.load(required(there, path), path), *DESTINATIONS))
        spaces = [str(each["namespace"]) for each in found if each.get("server") == SERVER]
        # Argo CD's own add-on is not on a cluster that it serves from elsewhere.
        spaces = [space for space in spaces if project == "platform" or space != applications.NAMESPACE]
        made[path] = with_items(there, path, DESTINATIONS, [{"name": name, "namespace": space} for space in spaces])
        if project == "platform":
            made[path] = with_items(there, path, WIDE, [SPACE], made[path])
    return made


def with_items(
    there: Snapshot, path: str, where: tuple[str, ...], items: Sequence[Any], text: bytes | None = None
) -> bytes:
    """A file with what is missing of these at the end of a list."""
    text = text or required(there, path)
    for item in items:
        if item not in (at(yamledit.load(text, path), *where) or []):
            text = yamledit.add_item(text, where, item, path)
    return text


# With an Argo CD of its own


def alone(there: Snapshot, instance: Instance) -> Files:
    """What the cluster's own Argo CD takes: as the hub's, without environments and other clusters."""
    folder, projects = instance.folder, [f"project-{name}.yaml" for name in applications.PROJECTS]
    made: Files = {f"{folder}/{file}": without_others(there, f"{ARGOCD}/{file}") for file in projects}
    for name, paths in (("root", "."), ("platform", f".;/{PLATFORM}")):
        hub, source = f"{ARGOCD}/{name}.yaml", ("spec", "source", "path")
        edits: dict[yamledit.Path, str] = {source: instance.taken()[name][0], applications.GENERATE_PATHS: paths}
        made[f"{folder}/{name}.yaml"] = yamledit.edit(required(there, hub), edits, hub)
    names = ["platform.yaml", "root.yaml", *projects]
    head = (
        f"What the Argo CD of the cluster {instance.cluster} takes, as `python scripts/bootstrap.py` applies it once."
    )
    made[f"{folder}/{KUSTOMIZATION}"] = listing(head, names, [], [])
    return made


def without_others(there: Snapshot, path: str) -> bytes:
    """A project of the hub without what it allows on the clusters that it serves."""
    text = required(there, path)
    for where, item in of_others(yamledit.load(text, path)):
        text = yamledit.remove_item(text, where, item, path)
    return text


def of_others(project: Any, cluster: str = "") -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """What a project allows on clusters that the hub serves, or on one of them, and where it stands."""
    named = [each for each in mappings(at(project, *DESTINATIONS)) if each.get("name") not in (None, IN_CLUSTER)]
    gone = [each for each in named if each["name"] == (cluster or each["name"])]
    yield from ((DESTINATIONS, dict(each)) for each in gone)
    if gone == named and SPACE in listed(at(project, *WIDE)):
        yield WIDE, SPACE


# A cluster that goes


def removed(there: Snapshot, name: str) -> Files:
    """The files without a cluster. Raises Refused while an environment is on it."""
    policy = there.policy
    if on := policy.on(name):
        raise Refused(
            f"{POLICY_FILE}: environments: {on[0]}: cluster: {name}; retire what runs there, and remove the environment"
            " or move it to another cluster first"
        )
    made: Files = dict.fromkeys(there.files(f"{layout.CLUSTERS}/{name}"))
    if name in policy.clusters:
        text = required(there, POLICY_FILE)
        item = next(each for each in yamledit.load(text, POLICY_FILE)["clusters"] if each["name"] == name)
        made[POLICY_FILE] = yamledit.remove_item(text, ("clusters",), item, POLICY_FILE)
    applied = {f"{ARGOCD}/{each}-{name}.yaml" for each in ("platform", "addons")}
    made |= dict.fromkeys(path for path in applied if there.read(path) is not None)
    path = f"{ARGOCD}/{KUSTOMIZATION}"
    text = required(there, path)
    for file in listed(at(yamledit.load(text, path), "resources")):
        if f"{ARGOCD}/{file}" in applied:
            text = yamledit.remove_item(text, ("resources",), str(file), path)
    made[path] = text
    for project in ("addons", "platform"):
        path = f"{ARGOCD}/project-{project}.yaml"
        text = required(there, path)
        for where, item in of_others(yamledit.load(text, path), name):
            text = yamledit.remove_item(text, where, item, path)
        made[path] = text
    return made


if __name__ == "__main__":
    raise SystemExit(main())
