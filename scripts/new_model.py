"""Make a new model and its app; they train, validate and deploy to the first environment before you change a line.

The model comes from a skeleton for its kind, with data that scikit-learn ships, the app from the skeleton of its shape.
What a person has to write is listed, and so are the next commands. Model code is changed on main and what is deployed
on cicd: --only makes the one part or the other. An interrupted run is completed by the same command.

  python scripts/new_model.py wine --shape api
  python scripts/new_model.py prices --kind regression --shape inference-service --app prices-sklearn
  python scripts/new_model.py wine --only model
  python scripts/new_model.py wine --shape api --only app
"""

from __future__ import annotations

import argparse
import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gitops import cli
from gitops.manifests import yamledit
from gitops.releases import release_file
from gitops.repo import layout, snapshot, values, ways
from gitops.repo.git import Git
from gitops.repo.snapshot import Snapshot

import skeletons
from contract import temporary
from contract.errors import Refused

SOURCE = "model-src"
MODELS = f"{SOURCE}/models"
# A package of Python, a label of Kubernetes and a folder in S3 at once.
MODEL_NAME = re.compile(r"[a-z][a-z0-9]{0,62}")
# A DNS label that starts with a letter, as the name of a Service does; 52 is the longest name of a CronJob.
APP_NAME = re.compile(r"(?=.{1,52}\Z)[a-z]([a-z0-9-]*[a-z0-9])?")
# What a shape's skeleton leaves open.
PLACEHOLDER = re.compile(rb"\b(APP|MODEL|ENVIRONMENT|NAMESPACE|DOMAIN|BUCKET|ACCOUNT|REGION|REGISTRY)\b")

Files = dict[str, bytes]


@dataclass
class Plan:
    """What is new: whole folders, each with its files by their paths in it."""

    folders: dict[str, Files] = field(default_factory=dict)

    def files(self) -> Files:
        return {f"{folder}/{path}": data for folder, files in self.folders.items() for path, data in files.items()}

    def to_write(self) -> list[str]:
        """Places that a person has to write, one a line."""
        return [
            f"{path}: line {', '.join(found)}"
            for path, data in self.files().items()
            if (found := marked(data.decode(errors="replace")))
        ]


def marked(text: str) -> list[str]:
    return [str(n) for n, line in enumerate(text.splitlines(), 1) if skeletons.TO_BE_WRITTEN in line]


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("model", metavar="NAME", help="the new model: letters a-z and digits")
    parser.add_argument("--shape", help="the shape of its app, a folder of base/ that has a skeleton")
    parser.add_argument("--app", help="the app's name (default: NAME-SHAPE)")
    parser.add_argument(
        "--kind", choices=skeletons.KINDS, default="classification", help="what it is to answer (default: %(default)s)"
    )
    parser.add_argument(
        "--only", choices=("model", "app"), help="model: model-src/ alone, for main; app: the rest, for cicd"
    )
    args = parser.parse_args(argv)
    if (args.only == "model") == bool(args.shape):
        parser.error("give --shape, the app's, or --only model")
    if args.only == "model" and args.app:
        parser.error("--only model makes no app, so it takes no --app")
    return cli.run(new_model, args)


def new_model(args: argparse.Namespace) -> None:
    git, plan = Git(args.root), Plan()
    tree = snapshot.at(git, "HEAD")
    require_name(args.model, MODEL_NAME, "letters a-z and digits, a letter first, at most 63 of them")
    if args.only != "app":
        plan.folders[f"{MODELS}/{args.model}"] = skeletons.render(args.kind, args.model)
    elif args.model not in layout.models(git.root):
        cli.say(f"{MODELS}/{args.model}: not on this branch; import_model_code.py brings it from main")
    app = None
    if args.only != "model":
        app = args.app or f"{args.model}-{args.shape}"
        require_name(app, APP_NAME, "a-z, digits and -, a letter first and no - last, at most 52 of them")
        git.require_clean(f"base/{args.shape}")
        plan.folders |= app_folders(tree, args.shape, app, args.model)
    missing, next_steps = require_free(git, plan), steps(plan, args.model, app, tree)
    if not args.dry_run:
        add(git, missing)
    if args.json:
        cli.print_json({
            "model": args.model, "kind": None if args.only == "app" else args.kind, "shape": args.shape, "app": app,
            "files": list(plan.files()), "added": list(missing.files()), "to_write": plan.to_write(),
            "dry_run": args.dry_run,
        })  # fmt: skip
        return
    for folder, files in plan.folders.items():
        there = "" if folder in missing.folders else ", there already"
        cli.say(f"{'would make ' if args.dry_run else ''}{folder}: {len(files)} file{'s' * (len(files) != 1)}{there}")
    if args.dry_run:
        print(*missing.files(), sep="\n")
        return
    for line in plan.to_write():
        cli.say(f"to be written: {line}")
    print("\n".join(next_steps))


def require_name(name: str, pattern: re.Pattern[str], meaning: str) -> None:
    if not pattern.fullmatch(name):
        raise Refused(f"{name!r}: not a name for it; take {meaning}")
    if keyword.iskeyword(name) or yamledit.needs_quotes(name):
        raise Refused(f"{name!r}: a word of {'Python' if keyword.iskeyword(name) else 'YAML'}; take another name")


# The app


def app_folders(tree: Snapshot, shape: str, app: str, model: str) -> dict[str, Files]:
    """The folders of a new app: `app/` of the shape's skeleton, and `overlay/` for each environment, in the first one
    and in production with the files of `first/` and `last/` in the place of those. Raises Refused for a shape without.
    """
    require_skeleton(tree, shape)
    parts = {part: skeleton(tree, shape, part) for part in ("app", "overlay", "first", "last")}

    def filled(files: Files, environment: str) -> Files:
        def value(match: re.Match[bytes]) -> bytes:
            own = {"app": app, "model": model, "environment": environment}
            word = match[1].decode().lower()
            return (own.get(word) or values.of_environment(tree, environment, word)).encode()

        return {path: PLACEHOLDER.sub(value, data) for path, data in files.items()}

    folders = {f"apps/{app}": filled(parts["app"], tree.policy.last[-1])}
    for environment in tree.policy.environments:
        files = parts["overlay"]
        files = files | parts["first"] if environment == tree.policy.first else files
        files = files | parts["last"] if environment in tree.policy.production else files
        folders[layout.overlay(app, environment)] = filled(files, environment)
    return folders


def require_skeleton(tree: Snapshot, shape: str) -> None:
    known = sorted({path.split("/")[1] for path in tree.files("base") if path.split("/")[2:3] == [layout.SKELETON]})
    if shape not in known:
        raise Refused(
            f"--shape {shape!r}: base/{shape}/{layout.SKELETON}: not committed; the shapes that have one are"
            f" {', '.join(known) or 'none'}, and CONTRIBUTING.md tells how to write it"
        )


def skeleton(tree: Snapshot, shape: str, part: str) -> Files:
    folder = f"base/{shape}/{layout.SKELETON}/{part}/"
    return {path.removeprefix(folder): tree.read(path) or b"" for path in tree.files(folder)}


# Writing


def require_free(git: Git, plan: Plan) -> Plan:
    """What is still missing of the plan. Raises Refused when something else is in its place."""
    missing = Plan()
    faults = []
    for folder, files in plan.folders.items():
        place = git.root / folder
        if not place.exists() and not git.files("HEAD", folder):
            ignored = [path for path in files if git.succeeds("check-ignore", "--quiet", f"{folder}/{path}")]
            faults += [f"{folder}/{ignored[0]}: git ignores a file of that name; take another name"] if ignored else []
            missing.folders[folder] = files
        elif _content(place) != files:
            faults.append(f"{folder}: there already, and not as this command makes it; take another name")
    if faults:
        raise Refused(*faults)
    return missing


def _content(folder: Path) -> Files:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def write(root: Path, plan: Plan) -> None:
    for folder, files in plan.folders.items():
        for path, data in files.items():
            (root / folder / path).parent.mkdir(parents=True, exist_ok=True)
            (root / folder / path).write_bytes(data)


def add(git: Git, plan: Plan) -> None:
    """Every folder appears by one rename from git's own folder, where nothing is left in the way."""
    own = Path(git.text("rev-parse", "--absolute-git-dir"))
    with temporary.folder("gitops-new-", own) as holder:
        write(holder, plan)
        for folder in plan.folders:
            (git.root / folder).parent.mkdir(exist_ok=True)
            (holder / folder).rename(git.root / folder)


def steps(plan: Plan, model: str, app: str | None, tree: Snapshot) -> list[str]:
    """The commands that come next, for the one branch and the other. Raises Refused for an app that has no release."""
    lines = []
    if (code := plan.folders.get(f"{MODELS}/{model}")) is not None:
        lines += ["", "For a pull request to main:", f"  cd {SOURCE}"]
        # Data that a stage does not make.
        if any(path.endswith(".dvc") for path in code):
            lines.append(f"  python -m models.{model}.generate_data")
        lines += [
            f"  dvc repro models/{model}/dvc.yaml",
            f"  git add models/{model} && git commit -m 'Add the model {model}'",
            "",
            "When it is merged, on main:",
            f"  python -m lifecycle version {model}",
            "  cd ..",
            f"  python scripts/upload_model.py --model {model} --artifacts {SOURCE}/artifacts/{model}",
            f"  python scripts/import_model_code.py {ways.option(tree.policy)}",
        ]
    if app:
        folders = [folder for folder in plan.folders if not folder.startswith(f"{SOURCE}/")]
        first = tree.policy.first
        has_image = any(item.image for item in release_file.read_all(plan.files().get, app, first))
        image = " --image IMAGE" if has_image else ""
        way = ways.option(tree.policy)
        lines += [
            "",
            "For a pull request to cicd:",
            "  python scripts/validate.py",
            f"  git add {' '.join(folders)} && git commit -m 'Add the app {app}'",
            "",
            "When that is merged, with what upload_model.py printed:",
            f"  python scripts/bump_model.py --app {app} --env {first} --model-uri URI{image} {way}",
        ]
    return lines[1:]  # the first is blank


if __name__ == "__main__":
    raise SystemExit(main())
