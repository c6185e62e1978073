"""Show the whole way of a model on this machine, from its data to an answer in production, all by Git.

Works in .demo/: a new remote and a new clone of what is committed here, and a local S3 server whose data stays for the
next run. Every step is a command of this repository or of git, printed as a person would type it; where a person would
press the merge button of a pull request, the branch is merged and pushed. Nothing outside .demo/ is written.

  make demo
  python scripts/demo.py --model wine
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitops import cli  # first, as it names the packages that are missing
from gitops.manifests import kustomize
from gitops.releases import effect, release_file
from gitops.repo import layout, snapshot
from gitops.repo.policy import read_policy

from contract.errors import Refused

# isort: split
import yaml

IMAGE_DIGEST = hashlib.sha256(b"not built").hexdigest()


@dataclass(frozen=True)
class Subject:
    """The model that is shown, and its apps that answer requests."""

    model: str
    service: str
    """The one that is our own service: its image is a part of its release."""
    stock: tuple[str, ...]
    """Those that are stock servers."""
    environments: tuple[str, ...]

    @property
    def apps(self) -> list[str]:
        return [word for app in (*self.stock, self.service) for word in ("--app", app)]

    @property
    def pipeline(self) -> str:
        return f"models/{self.model}/dvc.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--model", help="the model to show (default: the first that has a service of its own)")
    return cli.run(demo, parser.parse_args(argv))


def demo(args: argparse.Namespace) -> None:
    began = time.monotonic()
    subject = choose(args.root, args.model)
    work = args.root / ".demo"
    work.mkdir(exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"{work}: another demo is running there; wait for it, or stop it") from None
        lifecycle(args.root, work, subject)
    print(f"\nDone in {time.monotonic() - began:.0f} s. The clone is {work / 'clone'}: look at `git log cicd` there.")


def choose(root: Path, model: str | None) -> Subject:
    """Raises Refused when no model that is asked for has an app which is our own service."""
    policy, first = read_policy(root), snapshot.Snapshot(root)
    environment = policy.first
    folders = {app: layout.overlay(app, environment) for app in layout.apps(root)}
    there = {app: folder for app, folder in folders.items() if release_file.find(first.read, app, environment)}
    renders = kustomize.rendered_all(root, there.values())
    apps: dict[str, dict[str, list[str]]] = {}
    for app, folder in there.items():
        workload = effect.workload(app, renders[folder])
        name, _ = effect.declared(workload)
        apps.setdefault(str(name), {}).setdefault(workload["kind"], []).append(app)
    for name in layout.models(root):
        if model in (None, name) and (services := apps.get(name, {}).get("Deployment")):
            stock = tuple(apps[name].get("InferenceService", []))
            return Subject(name, services[0], stock, policy.environments)
    raise Refused(
        f"{model or 'apps'}: no model with a service of its own; make one with"
        f" `python scripts/new_model.py {model or 'NAME'} --shape api` and commit it"
    )


def lifecycle(root: Path, work: Path, subject: Subject) -> None:
    heading("A remote whose branches main and cicd start at this commit, and a clone of it")
    clone = Shell(fresh_clone(root, work), root)
    first, last = subject.environments[0], subject.environments[-1]
    deployed = container(clone.quiet("kustomize", "build", layout.overlay(subject.service, last)))
    policy = yaml.safe_load((clone.folder / "overlays/promotion.yaml").read_text())
    bucket, registry = f"s3://{policy['model_bucket']}", policy["image_registries"][0]

    with s3_server(clone, work / "s3", deployed["env"]["AWS_REGION"]) as variables:
        clone.env |= variables

        heading("main: a data scientist changes a parameter, trains, and uploads what came out")
        uri = train_and_upload(clone, subject, bucket, "Search with another seed")

        heading(f"cicd: the model code is imported, and the version is released in {first}")
        clone.script("import_model_code.py", "--push")
        clone.say("# The image's digest is a stand-in: not built, because this machine may have no Docker.")
        image = f"{registry}/{subject.service}@sha256:{IMAGE_DIGEST}"
        releases = [*(f"{app}:{first}={uri}" for app in subject.stock), f"{subject.service}:{first}={uri},{image}"]
        clone.script("bump_model.py", *(word for item in releases for word in ("--release", item)), "--push")

        for environment in subject.environments[1:]:
            heading(f"A promotion to {environment}: one branch, one pull request, one merge")
            clone.script("promote_model.py", *subject.apps, "--to", environment, "--push")
            merge(clone, environment)

        heading("What production runs: command, environment and model of the manifests")
        row = question(clone, subject)
        answer = ask(clone, layout.overlay(subject.service, last), row)
        version = uri.rstrip("/").rpartition("/")[2]
        if answer.get("model_version") != version:
            raise Refused(f"the service answered {answer}; production was released with {version}")
        print(f"\n{subject.model} {answer['model_version']} answers {json.dumps(row)} with {answer['prediction']}.")

        heading(f"A second version, released in {first} while production stays")
        clone("git", "checkout", "-q", "main")
        second = train_and_upload(clone, subject, bucket, "Search with a third seed", production=uri)
        clone.script("bump_model.py", "--app", subject.apps[1], "--env", first, "--model-uri", second, "--push")

        heading("What runs where, and where it came from")
        clone.script("releases.py")
        clone.script("list_versions.py", "--model", subject.model, "--verify")
        print(f"{subject.service}'s image is a stand-in: not built.")


class Shell:
    """Runs commands in a folder, printed as a person would type them; one that fails ends the demo."""

    def __init__(self, folder: Path, root: Path, env: Mapping[str, str] | None = None, prompt: str = "$") -> None:
        self.folder, self.root, self.prompt = folder, root, prompt
        self.env = dict(env or environment(root))

    def __call__(self, *command: str, env: Mapping[str, str] | None = None) -> str:
        """Shows the command and what it prints, and returns that: its result is the last line."""
        self.say(f"{self.prompt} {shlex.join(command)}")
        return self._run(command, env, show=True)

    def quiet(self, *command: str) -> str:
        return self._run(command, None, show=False)

    def script(self, name: str, *args: str) -> str:
        return self("python", f"scripts/{name}", *args)

    def model(self) -> Shell:
        """The same in model-src/, with that project's Python."""
        python = self.root / "model-src/.venv/bin"
        return Shell(
            self.folder / "model-src", self.root, self.env | {"PATH": f"{python}:{self.env['PATH']}"}, "model-src$"
        )

    def say(self, line: str) -> None:
        print(f"\n{line}", flush=True)

    def _run(self, command: Sequence[str], env: Mapping[str, str] | None, *, show: bool) -> str:
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.env | dict(env or {}),
            stdout=subprocess.PIPE,
            # One pipe, so that both are shown in the order in which they were written.
            stderr=subprocess.STDOUT if show else None,
            text=True,
        ) as process:
            assert process.stdout is not None
            out = []
            for line in process.stdout:
                out.append(line)
                if show:
                    print(line, end="", flush=True)
        if process.returncode:
            raise Refused(f"the demo ends here: `{shlex.join(command)}` failed with exit code {process.returncode}")
        return "".join(out)


def environment(root: Path) -> dict[str, str]:
    """The user's environment without what would lead a command to another repository, bucket or tracking server."""
    foreign = ("AWS_", "MLFLOW_", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {
        "PATH": f"{root / '.venv/bin'}:{os.environ['PATH']}",
        # None, rather than the null device, which DVC takes for a directory.
        "AWS_CONFIG_FILE": str(root / ".demo/no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def heading(text: str) -> None:
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def fresh_clone(root: Path, work: Path) -> Path:
    remote, clone = work / "remote.git", work / "clone"
    for folder in (remote, clone):
        if folder.exists():
            shutil.rmtree(folder)
    here = Shell(root, root)
    if here.quiet("git", "rev-parse", "--is-shallow-repository").strip() == "true":
        raise Refused(f"{root}: shallow clone, so a model's code commit is unknown; run `git fetch --unshallow`")
    if here.quiet("git", "status", "--porcelain"):
        print("Changes that are not committed are not part of the demo.")
    here("git", "init", "-q", "--bare", "--initial-branch=cicd", str(remote))
    here("git", "push", "-q", str(remote), "HEAD:refs/heads/main", "HEAD:refs/heads/cicd")
    here("git", "clone", "-q", "--branch", "main", str(remote), str(clone))
    there = Shell(clone, root)
    # So that it works where nobody has told git a name, and asks nobody for a signature.
    for name, value in {"user.name": "Demo", "user.email": "demo@example.com", "commit.gpgsign": "false"}.items():
        there.quiet("git", "config", name, value)
    # The next demo need not train again what this one has.
    there.model().quiet("dvc", "cache", "dir", "--local", str(work / "dvc-cache"))
    return clone


@contextlib.contextmanager
def s3_server(clone: Shell, data: Path, region: str) -> Iterator[dict[str, str]]:
    """The local S3 server while the block runs, and the variables that lead to it."""
    command = ["python", "scripts/local_s3.py", "--data", str(data), "--region", region]
    clone.say(f"$ {shlex.join(command)} &")
    with subprocess.Popen(
        command, cwd=clone.folder, env=clone.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            variables = {}
            for line in process.stdout:
                name, found, value = line.strip().removeprefix("export ").partition("=")
                if found and name.startswith("AWS_"):
                    variables[name] = value
                    print(line, end="")
                if len(variables) == 4:
                    break
            if not wait_for(variables.get("AWS_ENDPOINT_URL_S3", ""), process):
                raise Refused("the local S3 server did not start; try `python scripts/local_s3.py`")
            # Nobody reads on, so what it prints must not fill the pipe.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield variables
        finally:
            process.terminate()


def train_and_upload(clone: Shell, subject: Subject, bucket: str, message: str, production: str | None = None) -> str:
    """Changes a parameter, trains, commits both with their lock, and uploads the version; returns its URI."""
    change_seed(clone, subject)
    model = clone.model()
    if (model.folder / f"models/{subject.model}/data/raw.csv.dvc").exists():
        model("python", "-m", f"models.{subject.model}.generate_data")
    model("dvc", "repro", subject.pipeline)
    model("dvc", "metrics", "diff")
    # The date of the commit is a part of the version's name: the same demo makes the same version tomorrow.
    date = clone.quiet("git", "log", "-1", "--format=%cI").strip()
    # Of a model that was never trained, its lock and what is told of it are new.
    clone("git", "add", f"model-src/models/{subject.model}")
    clone("git", "commit", "-qm", message, env={"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date})
    clone("git", "push", "-q", "origin", "main")
    model("dvc", "push", subject.pipeline)
    model("python", "-m", "lifecycle", "version", subject.model)
    if production:
        model("python", "-m", "lifecycle", "compare", subject.model, "--with", production)
    artifacts = f"model-src/artifacts/{subject.model}"
    shown = clone.script("upload_model.py", "--model", subject.model, "--artifacts", artifacts, "--bucket", bucket)
    return shown.splitlines()[-1]


def change_seed(clone: Shell, subject: Subject) -> None:
    """Another seed of the search: the same rows are held out, so that both versions are compared on the same."""
    path = f"model-src/models/{subject.model}/params.yaml"
    text = (clone.folder / path).read_text()
    found = re.search(r"^tune:\n(?:[ #].*\n)*?  seed: (\d+)", text, re.M)
    if found is None:
        raise Refused(f"{path}: tune.seed: no number to change")
    (clone.folder / path).write_text(f"{text[: found.start(1)]}{int(found[1]) + 1}{text[found.end(1) :]}")
    clone("git", "diff", "--unified=0", "--", "model-src")


def merge(clone: Shell, environment: str) -> None:
    """What the button of a pull request does."""
    clone("git", "fetch", "-q", "origin")
    listed = clone.quiet("git", "branch", "--remotes", "--format=%(refname:short)", "--list", "origin/promote/*")
    [branch] = [name for name in listed.split() if name.startswith(f"origin/promote/{environment}/")]
    clone("git", "checkout", "-q", "-B", "cicd", "origin/cicd")
    clone("git", "merge", "-q", "--no-ff", "-m", f"Merge {branch.removeprefix('origin/')}", branch)
    clone("git", "diff", "--stat", "HEAD~1", "HEAD")
    clone("git", "push", "-q", "origin", "cicd")


def container(render: str) -> dict[str, Any]:
    """`command` and `env`, by name, of the container of a render's Deployment that serves the model."""
    [deployment] = [item for item in yaml.safe_load_all(render) if item["kind"] == "Deployment"]
    containers = deployment["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: {item["name"]: item.get("value") for item in each.get("env", ())} for each in containers}
    [found] = [each for each in containers if "MODEL_URI" in variables[each["name"]]]
    return {"command": found["command"], "env": variables[found["name"]]}


def question(clone: Shell, subject: Subject) -> list[float | None]:
    """The features to ask for: the example of problem.yaml, else the first row that the version was made from."""
    problem = yaml.safe_load((clone.folder / f"model-src/models/{subject.model}/problem.yaml").read_text())
    version = clone.folder / f"model-src/artifacts/{subject.model}"
    inputs = len(json.loads((version / "manifest.json").read_text())["signature"]["inputs"])
    row = (version / "reference/reference.csv").read_text().splitlines()[1].split(",")[:inputs]
    return problem.get("example") or [float(cell) if cell else None for cell in row]


def ask(clone: Shell, overlay: str, row: Sequence[float | None]) -> dict[str, Any]:
    """Starts the service as production's Deployment would, and asks it for a row of features."""
    command = ("kustomize", "build", overlay)
    clone.say(f"$ {shlex.join(command)}")
    deployed = container(clone.quiet(*command))
    print(f"... {json.dumps(deployed)}")
    # What differs from a pod: where it listens, and which S3 it reads with which credentials.
    replaced = {"HOST": "127.0.0.1", "PORT": "0"} | {
        name: clone.env[name] for name in ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    }
    model = clone.model()
    env = {"PATH": model.env["PATH"]} | deployed["env"] | replaced
    shown = " ".join(f"{name}={shlex.quote(value)}" for name, value in env.items() if name != "PATH")
    clone.say(f"model-src$ {shown} {shlex.join(deployed['command'])} &")
    with subprocess.Popen(deployed["command"], cwd=model.folder, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = ""
        try:
            for line in process.stderr:
                print(line, end="", flush=True)
                if line.startswith("listening on "):
                    url = line.split()[-1]
                    break
            threading.Thread(target=show, args=(process.stderr,), daemon=True).start()
            if not wait_for(f"{url}/readyz", process):
                raise Refused("the service did not become ready, see above")
            body = json.dumps({"features": row})
            clone.say(f"$ curl {url}/predict -H 'Content-Type: application/json' -d '{body}'")
            request = urllib.request.Request(
                f"{url}/predict", body.encode(), {"Content-Type": "application/json"}, method="POST"
            )
            with urllib.request.urlopen(request, timeout=10) as response:
                text = response.read().decode()
            print(text)
            answer: dict[str, Any] = json.loads(text)
            return answer
        except urllib.error.URLError as error:
            raise Refused(f"{url}/predict: {error}") from None
        finally:
            process.terminate()


def show(lines: Iterator[str]) -> None:
    for line in lines:
        print(line, end="", flush=True)


def wait_for(url: str, process: subprocess.Popen[str], seconds: float = 60) -> bool:
    """Whether an address answers well, or at all if it is an S3 server's, before its process ends."""
    end = time.monotonic() + seconds
    while url.startswith("http") and process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except urllib.error.HTTPError as error:
            if error.code == 403:  # an S3 server that wants a signature is up
                return True
        except OSError:
            pass
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    raise SystemExit(main())
