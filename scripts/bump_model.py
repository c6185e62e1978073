"""Release a model version: write it into an app's release file, and commit it to the deployed branch.

Everything is verified first: the version's manifest, digest and every stored byte, and that the rendered manifests
change in the fields of the release and nowhere else. Without an option, and without `publish` in the policy, only the
file in this checkout is written. --commit writes a commit on the branch cicd, whatever is checked out; --push also
pushes it; --pull-request pushes a branch of its own.

  python scripts/bump_model.py --app wine-sklearn --env dev --model-uri s3://BUCKET/models/wine/VERSION/
  python scripts/bump_model.py --app wine-api --env dev --model-uri s3://BUCKET/models/wine/VERSION/ \\
      --image REGISTRY/wine-api@sha256:DIGEST --commit --push
  python scripts/bump_model.py --model-uri s3://BUCKET/models/wine/VERSION/ --push
  python scripts/bump_model.py --release wine-api:dev=URI,IMAGE --release wine-sklearn:dev=URI --push
  python scripts/bump_model.py --app wine-sklearn --env dev --canary next --model-uri URI --push
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gitops import cli
from gitops.models import store
from gitops.models.s3 import Store
from gitops.models.signing import Signer
from gitops.releases import branches, effect, hold, release, release_file, verification, writing
from gitops.releases.history import Ran
from gitops.releases.release import Release, Target
from gitops.releases.writing import Tree
from gitops.repo import layout, publish, ways
from gitops.repo.git import Git
from gitops.repo.publish import Draft, Published, Way

from contract.errors import Refused
from contract.manifest import Manifest
from contract.uri import VersionURI, parse_uri

_REQUEST = re.compile(
    r"(?P<app>[^:=,]+):(?P<environment>[^:=,]+)(?::(?P<canary>[^:=,]+))?=(?P<uri>[^,]+)(?:,(?P<image>.+))?"
)


@dataclass(frozen=True)
class Request:
    """One release that was asked for."""

    target: Target
    uri: VersionURI
    image: str | None


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("--app", help="the app, a folder of apps/")
    parser.add_argument("--env", help="the environment")
    parser.add_argument(
        "--model-uri",
        metavar="URI",
        help="the version, as upload_model.py printed it; alone, for all apps of its model in the first environment"
        " that need no new image",
    )
    parser.add_argument("--canary", metavar="NAME", help="the canary of that name instead of what most callers get")
    parser.add_argument(
        "--image",
        metavar="IMAGE",
        help="NAME@sha256:DIGEST, NAME:TAG or both, for apps that have an image; or a Stack's archive",
    )
    parser.add_argument(
        "--release",
        action="append",
        default=[],
        metavar="APP:ENV[:CANARY]=URI[,IMAGE]",
        help="several releases in one commit",
    )
    ways.add_options(parser)
    args = parser.parse_args(argv)
    single = [args.app, args.env, args.model_uri]
    more = args.image or args.canary
    alone = single == [None, None, args.model_uri] and not more
    if any(single) == bool(args.release) or (any(single) and not all(single) and not alone) or (args.release and more):
        parser.error(
            "give either --app, --env and --model-uri (and --canary, --image), or --model-uri alone,"
            " or one --release or more"
        )
    for text in args.release:
        if not _REQUEST.fullmatch(text):
            parser.error(f"--release {text!r}: write it as APP:ENV=URI or APP:ENV:CANARY=URI,IMAGE")
    return cli.run(bump, args)


def bump(args: argparse.Namespace) -> None:
    git = Git(args.root)
    git.require_full_history()
    asked = _requests(args)
    apps = [request.target.app for request in asked]
    asked_way = ways.chosen(args, git, Way.EDIT)
    if asked_way.way is not Way.EDIT:
        publish.require_clean(git)
    first_seen: dict[Request, Release] = {}
    verified: dict[tuple[VersionURI, Signer | None], Manifest] = {}
    # In which replicas they were found.
    copied: set[tuple[str, VersionURI, Signer | None]] = set()
    # The change, and the commit that it was checked against.
    checked: list[tuple[writing.Change, str]] = []

    def wanted(tree: Tree, _: Ran) -> list[Release]:
        requests = asked or _without_new_image(tree, parse_uri(args.model_uri))
        current = {request: tree.release(request.target) for request in requests}
        tree.render(layout.overlay(now.app, now.environment) for now in current.values())  # side by side
        releases = []
        for request, now in current.items():
            hold.require_none(tree.read, now.app, now.environment)
            flavour = tree.require_model(request.target, request.uri)
            if (known := (request.uri, tree.signer)) not in verified:
                verified[known] = store.verify(Store(request.uri.bucket), *known)
            if (there := (tree.policy.at(now.environment).replica, *known)) not in copied:
                verification.require_replica(tree.policy, now.environment, request.uri, verified[known], tree.signer)
                copied.add(there)
            writing.require_flavour(str(request.uri), verified[known], flavour)
            new = release.make(now, flavour, verified[known], _image(request, now, tree))
            verification.require_archive(new.image)
            if now not in (first_seen.setdefault(request, now), new):
                raise Refused(
                    f"{now.file}: changed meanwhile, to {now.version}; look at that release, then run the command again"
                )
            releases.append(new)
        return releases

    def build(base: str) -> Draft | None:
        if not checked or not writing.stands(git, *checked[0], base):
            checked[:] = [(writing.prepare(git, base, wanted, apps), base)]
        change = checked[0][0]
        if not change.files:
            return None
        return Draft(git.tree_with(base, change.files), change.message("Release"))

    def edit() -> Published:
        change = writing.prepare(git, None, wanted, apps)
        checked[:] = [(change, "")]
        if not args.dry_run:
            writing.write_files(git, change.files)
        subject = release.subject("Release", change.releases, change.before) if change.files else ""
        return Published(asked_way, "", subject, files=tuple(change.files))

    def branch() -> str:
        return branches.of_releases("bump", checked[0][0].releases)

    published = edit() if asked_way.way is Way.EDIT else publish.publish(git, build, asked_way, branch)
    changed = checked[0][0].releases
    if args.json:
        cli.print_json(ways.as_json(git, published) | {"releases": [vars(r) for r in changed]})
        return
    what = [f"release {item.version} as {item.target}" for item in changed]
    ways.tell(git, published, what, "this is what is released already")
    for line in checked[0][0].frozen:
        cli.say(line)
    if published.commit:
        print(published.commit)


def _requests(args: argparse.Namespace) -> list[Request]:
    """Those that name their apps."""
    if args.app:
        return [Request(Target(args.app, args.env, args.canary), parse_uri(args.model_uri), args.image)]
    matches = [m for text in args.release if (m := _REQUEST.fullmatch(text))]
    requests = [
        Request(Target(m["app"], m["environment"], m["canary"]), parse_uri(m["uri"]), m["image"]) for m in matches
    ]
    targets = [request.target for request in requests]
    if twice := dict.fromkeys(target for target in targets if targets.count(target) > 1):
        raise Refused(*[f"--release: {target}: given twice; name each app and environment once" for target in twice])
    return requests


def _without_new_image(tree: Tree, uri: VersionURI) -> list[Request]:
    """For each app of the version's model in the first environment, but for those whose first image is to come."""
    environment = tree.policy.first
    found = {
        app: layout.overlay(app, environment)
        for app in tree.apps
        if any(item.image != release.UNRELEASED for item in release_file.read_all(tree.read, app, environment)[:1])
    }
    renders = tree.render(found.values())
    apps = [
        app for app, folder in found.items() if effect.declared(effect.workload(app, renders[folder]))[0] == uri.model
    ]
    if not apps:
        cli.say(f"no app of {uri.model} in {environment} can do without a new image")
    return [Request(Target(app, environment), uri, None) for app in apps]


def _image(request: Request, now: Release, tree: Tree) -> str | None:
    if now.image is None:
        if request.image:
            raise Refused(f"--image {request.image}: {now.app} runs a stock model server and has no image to set")
        return None
    if request.image:
        require = release.require_archive if tree.form(request.target).archive else release.require_image
        require(request.image, tree.policy)
        return request.image
    if now.image == release.UNRELEASED:
        raise Refused(f"{now.file}: no image yet; the first release of {now.app} needs --image")
    return now.image


if __name__ == "__main__":
    raise SystemExit(main())
