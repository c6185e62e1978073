"""Make a new model and its app, copied from what is here; they train, validate and deploy to dev at once.

The model's folder is copied from another model, its app from an app of the shape, all of it as it is committed. What a
person has to write is listed, and so are the next commands. Model code is changed on main and what is deployed on
cicd: --only makes the one part or the other. An interrupted run is completed by the same command.

  python scripts/new_model.py wine --shape api
  python scripts/new_model.py prices --kind regression --shape inference-service --app prices-sklearn
  python scripts/new_model.py wine --like iris --only model
  python scripts/new_model.py wine --shape api --only app
"""

from __future__ import annotations

import argparse
import keyword
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gitops import cli
from gitops.manifests import kustomize, yamledit
from gitops.manifests.objects import KUSTOMIZATION
from gitops.releases import effect, hold, release_file
from gitops.releases.release import Target
from gitops.repo import layout, snapshot
from gitops.repo.git import Git
from gitops.repo.policy import POLICY_FILE, Policy

from contract.errors import Refused

SOURCE = "model-src"
MODELS = f"{SOURCE}/models"
LIKE = {"classification": "iris", "regression": "diabetes"}
# A package of Python, a label of Kubernetes and a folder in S3 at once.
MODEL_NAME = re.compile(r"[a-z][a-z0-9]{0,62}")
# A DNS label that starts with a letter, as the name of a Service does; 52 is the longest name of a CronJob.
APP_NAME = re.compile(r"(?=.{1,52}\Z)[a-z]([a-z0-9-]*[a-z0-9])?")
TEXTS = ("title", "objective", "users", "out_of_scope")
TO_BE_WRITTEN = "To be written; "

Files = dict[str, bytes]


@dataclass
class Plan:
    """What is new: whole folders, each with its files by their paths in it."""

    folders: dict[str, Files] = field(default_factory=dict)
    to_write: list[str] = field(default_factory=list)
    """Places that a person has to write, one a line."""

    def paths(self) -> list[str]:
        return [f"{folder}/{path}" for folder, files in self.folders.items() for path in files]


@dataclass(frozen=True)
class App:
    """The app that is copied."""

    name: str
    model: str
    has_image: bool


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True, as_json=True)
    parser.add_argument("model", metavar="NAME", help="the new model: letters a-z and digits")
    parser.add_argument("--shape", help="the shape of its app, a folder of base/ that an app has already")
    parser.add_argument("--app", help="the app's name (default: that of the app it is copied from, for this model)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--like", metavar="MODEL", help="the model to copy")
    source.add_argument(
        "--kind", choices=LIKE, default="classification", help="what it is to answer (default: %(default)s)"
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
    git = Git(args.root)
    like = args.like or LIKE[args.kind]
    require_name(args.model, MODEL_NAME, "letters a-z and digits, a letter first, at most 63 of them")
    plan, app, copied = Plan(), None, None
    if args.only != "app":
        add_model(git, plan, args.model, like)
    elif args.model not in layout.models(git.root):
        cli.say(f"{MODELS}/{args.model}: not on this branch; import_model_code.py brings it from main")
    if args.only != "model":
        policy = snapshot.at(git, "HEAD").policy
        app, copied = add_app(git, plan, policy, args.shape, args.app, args.model, like)
    missing = require_free(git, plan)
    if app:
        require_rendered(git, plan, policy, app, args.model)
    if not args.dry_run:
        add(git, missing)
    if args.json:
        cli.print_json({
            "model": args.model, "like": None if args.only == "app" else like, "shape": args.shape, "app": app,
            "app_like": copied.name if copied else None, "files": plan.paths(), "added": missing.paths(),
            "to_write": plan.to_write, "dry_run": args.dry_run,
        })  # fmt: skip
        return
    for folder, files in plan.folders.items():
        there = "" if folder in missing.folders else ", there already"
        cli.say(f"{'would make ' if args.dry_run else ''}{folder}: {len(files)} file{'s' * (len(files) != 1)}{there}")
    if args.dry_run:
        print(*missing.paths(), sep="\n")
        return
    for line in plan.to_write:
        cli.say(f"to be written: {line}")
    print("\n".join(steps(plan, args.model, app, copied)))


# Names


def require_name(name: str, pattern: re.Pattern[str], meaning: str) -> None:
    if not pattern.fullmatch(name):
        raise Refused(f"{name!r}: not a name for it; take {meaning}")
    if keyword.iskeyword(name) or yamledit.needs_quotes(name):
        raise Refused(f"{name!r}: a word of {'Python' if keyword.iskeyword(name) else 'YAML'}; take another name")


# The model


def add_model(git: Git, plan: Plan, name: str, like: str) -> None:
    """Raises Refused when there is no such model to copy, or it has changes that are not committed."""
    known = layout.models(git.root)
    if like not in known:
        raise Refused(f"--like {like!r}: no such model; {MODELS}/ has {', '.join(known) or 'none'}")
    folder = f"{MODELS}/{like}"
    made = made_by_stages(_at_head(git, f"{folder}/dvc.yaml"), f"{folder}/dvc.yaml")
    made = {f"{SOURCE}/{path}" for path in made} | {f"{folder}/dvc.lock"}

    def kept(path: str) -> bool:
        return not any(path == one or path.startswith(f"{one}/") for one in made)

    _require_committed(filter(kept, git.dirty(folder)))
    files: Files = {}
    for path in filter(kept, git.files("HEAD", folder)):
        inner, data = path.removeprefix(f"{folder}/"), _at_head(git, path)
        if inner == "problem.yaml":
            data = own_problem(data, name, like, path)
            plan.to_write.append(f"{MODELS}/{name}/{inner}: {', '.join(TEXTS)}")
        files[inner] = renamed_model(data, like, name)
    files, tidy = tidied(git.root, name, files)
    if not tidy:
        cli.say(
            "ruff is not installed here, so imports may not be in its order: `make test` installs it, then run"
            f" `ruff check --fix {MODELS}/{name} && ruff format {MODELS}/{name}`"
        )
    plan.folders[f"{MODELS}/{name}"] = files
    for inner, data in files.items():
        lines = data.decode(errors="replace").splitlines()
        left = [n for n, line in enumerate(lines, 1) if re.search(rf"\b{like}\b", line) and TO_BE_WRITTEN not in line]
        if left:
            plan.to_write.append(f"{MODELS}/{name}/{inner}: speaks of {like} in line {', '.join(map(str, left))}")


def made_by_stages(pipeline: bytes, file: str) -> set[str]:
    """The files and folders that the stages of a dvc.yaml write, relative to model-src/."""
    found: set[str] = set()
    for stage in yamledit.load(pipeline, file)["stages"].values():
        for part in ("outs", "metrics", "plots"):
            for entry in stage.get(part, []):
                found |= set(entry) if isinstance(entry, dict) else {entry}
    return found


def own_problem(text: bytes, name: str, like: str, file: str) -> bytes:
    """problem.yaml with the names of another experiment and another registered model, its texts marked."""
    changes: dict[yamledit.Path, str] = {
        ("experiment",): f"{name}_experiment",
        ("registered_as",): f"{name.capitalize()}Model",
    }
    for key in TEXTS:
        if (value := yamledit.get(text, (key,), file)) is not None:
            changes[(key,)] = f"{TO_BE_WRITTEN}of {like}: {value}"
    return yamledit.edit(text, changes, file)


def renamed_model(data: bytes, old: str, new: str) -> bytes:
    """A file of a model with the name changed where it stands for the package, the folder or the model.

    The same word may be a column of the data, a part of somebody else's address or plain prose, and stays there.
    """
    before = (
        r"\b(?:from|import) models\.",
        r"\bfrom models import ",
        r"-m models\.",
        r"\blifecycle [a-z]+ ",
        r"\bname=[\"']",
        rf"\b[Tt]he (?={old} model\b)",
        rf"(?:^|(?<=model-src/)|(?<=[^\w./-]))models/(?={old}/)",
    )
    pattern = re.compile(rf"({'|'.join(before)}){old}\b", re.M)
    try:
        return pattern.sub(rf"\g<1>{new}", data.decode()).encode()
    except UnicodeDecodeError:
        return data


def tidied(root: Path, name: str, files: Files) -> tuple[Files, bool]:
    """The files with imports and lines as ruff wants them for the new name's place in the alphabet and its length;
    False when ruff is not installed."""
    places = [Path(sys.executable).parent, root / SOURCE / ".venv/bin"]
    ruff = shutil.which("ruff", path=os.pathsep.join(map(str, places)))
    if ruff is None:
        return files, False
    commands = (
        # The folder is not there yet, so ruff cannot see that it is one of this project's own.
        [ruff, "check", "--quiet", "--fix-only", "--select=I", "--config=lint.isort.known-first-party=['models']"],
        [ruff, "format", "--quiet"],
    )
    found = dict(files)
    for path in files:
        for command in commands if path.endswith(".py") else ():
            place = f"--stdin-filename=models/{name}/{path}"
            done = subprocess.run([*command, place, "-"], cwd=root / SOURCE, input=found[path], capture_output=True)
            if done.returncode:
                raise Refused(*[f"{MODELS}/{name}/{path}: ruff: {line}" for line in done.stderr.decode().splitlines()])
            found[path] = done.stdout
    return found, True


# The app


def add_app(
    git: Git, plan: Plan, policy: Policy, shape: str, name: str | None, model: str, like: str
) -> tuple[str, App]:
    """The name of the new app, and the app that it is a copy of. Raises Refused when there is none of the shape to
    copy, or it has changes that are not committed."""
    copied = choose(git, policy, shape, like)
    own = copied.name.startswith(f"{copied.model}-")
    app = name or (f"{model}{copied.name.removeprefix(copied.model)}" if own else f"{model}-{shape}")
    require_name(app, APP_NAME, "a-z, digits and -, a letter first and no - last, at most 52 of them")
    names = {copied.name: app, copied.model: model}
    sources = {f"apps/{copied.name}": f"apps/{app}"}
    sources |= {layout.overlay(copied.name, env): layout.overlay(app, env) for env in policy.environments}
    _require_committed(git.dirty(*sources))
    for old, new in sources.items():
        paths = [path for path in git.files("HEAD", old) if Path(path).name != hold.FILE]
        plan.folders[new] = {path.removeprefix(f"{old}/"): renamed_app(_at_head(git, path), names) for path in paths}
    for environment in policy.environments:
        path, text = unreleased(git, policy, Target(copied.name, environment))
        plan.folders[layout.overlay(app, environment)][Path(path).name] = renamed_app(text, names)
    return app, copied


def shapes(git: Git) -> dict[str, list[str]]:
    """The apps of each shape: which folder of base/ their kustomization starts from."""
    found: dict[str, list[str]] = {}
    for path in git.files("HEAD", "apps"):
        if path.count("/") == 2 and path.endswith(f"/{KUSTOMIZATION}"):
            for resource in yamledit.load(_at_head(git, path), path).get("resources", []):
                place = os.path.normpath(f"{Path(path).parent}/{resource}")
                if place.startswith("base/"):
                    found.setdefault(place.removeprefix("base/"), []).append(path.split("/")[1])
    return found


def choose(git: Git, policy: Policy, shape: str, like: str) -> App:
    """An app of the shape that is in every environment, of the model `like` if there is one."""
    known = shapes(git)
    if shape not in known:
        raise Refused(f"--shape {shape!r}: no app of that shape to copy; the shapes are {', '.join(sorted(known))}")
    show = snapshot.at(git, "HEAD").read
    whole = [app for app in known[shape] if all(release_file.find(show, app, env) for env in policy.environments)]
    first = {app: layout.overlay(app, policy.environments[0]) for app in whole}
    with snapshot.at(git, "HEAD").exported() as tree:
        renders = kustomize.build_all(tree, first.values())
    found = []
    for app, folder in first.items():
        model, _ = effect.declared(effect.workload(app, kustomize.objects(renders[folder])))
        image = release_file.read_all(show, app, policy.environments[0])[0].image
        found.append(App(app, str(model), image is not None))
    if not found:
        raise Refused(
            f"--shape {shape!r}: {', '.join(known[shape])}: not in every environment of {POLICY_FILE}, so there"
            " is no overlay to copy for some; CONTRIBUTING.md tells how to add one"
        )
    return next((app for app in found if app.model == like), found[0])


def renamed_app(data: bytes, names: Mapping[str, str]) -> bytes:
    """A manifest with these names changed, wherever they stand by themselves or between hyphens."""
    longest = sorted(names, key=len, reverse=True)
    pattern = re.compile(rf"(?<![A-Za-z0-9_])({'|'.join(map(re.escape, longest))})(?![A-Za-z0-9_])")
    return pattern.sub(lambda match: names[match[1]], data.decode()).encode()


def unreleased(git: Git, policy: Policy, source: Target) -> tuple[str, bytes]:
    """The release file of an overlay as it is before the first release; another environment's where this one's has a
    canary, which a new app starts without."""
    show = snapshot.at(git, "HEAD").read
    mine = release_file.find(show, source.app, source.environment)
    assert mine is not None  # the app was chosen for it
    for environment in (source.environment, *policy.environments):
        path, text = release_file.find(show, source.app, environment) or mine
        if Path(path).name == Path(mine[0]).name and len(release_file.read_all(show, source.app, environment)) == 1:
            return mine[0], release_file.unrelease(text, source, path)
    raise Refused(f"{mine[0]}: spec.canary: {source.app} has one in every environment; take one out first")


def require_rendered(git: Git, plan: Plan, policy: Policy, app: str, model: str) -> None:
    """Raises Refused unless every overlay of the new app renders a workload that serves the model."""
    with snapshot.at(git, "HEAD").exported() as tree:
        write(tree, plan)
        renders = kustomize.build_all(tree, [layout.overlay(app, environment) for environment in policy.environments])
    for folder, text in renders.items():
        served, _ = effect.declared(effect.workload(app, kustomize.objects(text)))
        if served != model:
            raise Refused(f"{folder}: renders as an app of the model {served!r}, not {model!r}; take another --app")


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
    with tempfile.TemporaryDirectory(prefix="gitops-new-", dir=own) as holder:
        write(Path(holder), plan)
        for folder in plan.folders:
            (Path(holder) / folder).rename(git.root / folder)


def steps(plan: Plan, model: str, app: str | None, copied: App | None) -> list[str]:
    """The commands that come next, for the one branch and the other."""
    lines = []
    if (code := plan.folders.get(f"{MODELS}/{model}")) is not None:
        lines += ["", "For a pull request to main:", f"  cd {SOURCE}"]
        if data := [path for path in code if path.endswith(".dvc")]:
            generated = "generate_data.py" in code
            lines.append(
                f"  python -m models.{model}.generate_data" if generated else f"  dvc pull models/{model}/{data[0]}"
            )
        lines += [
            f"  dvc repro models/{model}/dvc.yaml",
            f"  git add models/{model} && git commit -m 'Add the model {model}'",
            "",
            "When it is merged, on main:",
            f"  python -m lifecycle version {model}",
            "  cd ..",
            f"  python scripts/upload_model.py --model {model} --artifacts {SOURCE}/artifacts/{model}",
            "  python scripts/import_model_code.py --push",
        ]
    if app and copied:
        folders = [folder for folder in plan.folders if not folder.startswith(f"{SOURCE}/")]
        image = " --image IMAGE" if copied.has_image else ""
        lines += [
            "",
            "For a pull request to cicd:",
            "  python scripts/validate.py",
            f"  git add {' '.join(folders)} && git commit -m 'Add the app {app}'",
            "",
            "When that is merged, with what upload_model.py printed:",
            f"  python scripts/bump_model.py --app {app} --env dev --model-uri URI{image} --push",
        ]
    return lines[1:]  # the first is blank


def _at_head(git: Git, path: str) -> bytes:
    found = git.show("HEAD", path)
    if found is None:
        raise Refused(f"{path}: not committed; commit it")
    return found


def _require_committed(changed: Iterable[str]) -> None:
    if lines := [f"{path}: uncommitted change; commit it, or put it away with `git stash`" for path in changed]:
        raise Refused(*lines[:10])


if __name__ == "__main__":
    raise SystemExit(main())
