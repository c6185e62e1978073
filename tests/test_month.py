"""A month of a team: four clones of a repository whose `cicd` takes pull requests alone, merged in every way.

At every step the command works with what its clone has, each next command that it prints works as it stands, the
change passes the check that a merge needs, and `releases.py` in another clone is right against a record that is kept
beside it. What merges a pull request is the printed command, of a person who may push, or in its place the server's
squash or rebase; what deletes from a cluster is not run. What people write themselves they commit and push with git;
nothing else is.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from conftest import PROTECTED, REGISTRY, S3, Checkout, Result, Version, clone, git, package, protect
from test_release_targets import example, like

Place = tuple[str, str, str | None]
"""An app, its environment, and a canary's name."""
Runs = tuple[str, str | None]
"""A version and an image."""
UNRELEASED = "unreleased"


class Forge:
    """The server's side: a branch that only it may write, and the button that merges."""

    def __init__(self, remote: Path) -> None:
        self.remote, self.clone = remote, clone(remote, "forge")

    def open(self) -> None:
        """Lets everybody write the branch."""
        (self.remote / "hooks/pre-receive").unlink()

    def branches(self) -> set[str]:
        return set(git(self.remote, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").splitlines())

    def merge(self, branch: str, how: str, typed: Callable[[], object] | None) -> None:
        """Merges a pull request, after the check that it has to pass, and deletes its branch. A merge commit is what
        somebody `typed` where they can: the one that was checked, or the test fails."""
        do = self.clone.git
        do("fetch", "-q", "--prune", "origin")
        do("checkout", "-q", "-f", "-B", "cicd", "origin/cicd")
        before = do("rev-parse", "HEAD")
        if how == "merge":
            do("merge", "-q", "--no-ff", "-m", f"Merge pull request from team/{branch}", f"origin/{branch}")
        elif how == "squash":
            do("merge", "-q", "--squash", f"origin/{branch}")
            do("commit", "-qm", "Squashed")  # the title alone: what the commits tell is lost
        else:
            do("checkout", "-q", "--detach", f"origin/{branch}")
            do("rebase", "-q", "--force-rebase", "cicd")
            do("checkout", "-q", "-B", "cicd")
        checked = self.clone.run("validate", "--changed-since", before)
        assert checked.code == 0, checked.err
        if how != "merge" or typed is None:
            self.push("cicd", f":{branch}")
            return
        typed()
        do("fetch", "-q", "origin")
        made, right = (do("rev-parse", f"{rev}^1", f"{rev}^2", f"{rev}^{{tree}}") for rev in ("origin/cicd", "HEAD"))
        assert made == right
        self.push(f":{branch}")

    def merges(self, branch: str) -> bool:
        """Whether a pull request has no conflict."""
        self.clone.git("fetch", "-q", "origin")
        trees = ("origin/cicd", f"origin/{branch}")
        return (
            subprocess.run(
                ["git", "merge-tree", "--write-tree", *trees], cwd=self.clone.root, capture_output=True
            ).returncode
            == 0
        )

    def push(self, *refs: str) -> None:
        subprocess.run(["git", "push", "-q", "origin", *refs], cwd=self.clone.root, env=allowed(), check=True)


def allowed() -> dict[str, str]:
    """The environment of who may write the branch."""
    return {**os.environ, "FORGE": "1"}


class Team:
    def __init__(self, template: Path, folder: Path, names: Sequence[str]) -> None:
        git(folder, "clone", "-q", "--bare", str(template), "remote.git")
        self.remote = folder / "remote.git"
        self.people = {name: clone(self.remote, name) for name in names}
        self.forge = Forge(self.remote)
        self.protect("GitHub")
        self.record: dict[Place, Runs] = {}
        self.environments = ["dev", "staging", "prod"]
        self._watching = itertools.cycle(self.people.values())
        self._how = itertools.cycle(["merge", "squash", "rebase"])
        self._typed: dict[str, Callable[[], object]] = {}
        """By the branch of a pull request: what merges it by hand, as it was printed last."""

    def protect(self, server: str) -> None:
        """Lets the branch take pull requests alone, with the answers of a server."""
        self.answer = PROTECTED[server]
        protect(self.remote, self.answer)

    # What a person does

    def asks(self, who: str, command: str, *args: str) -> str:
        """A command that ends in a pull request. Returns its branch, which stays open."""
        return self.proposed(who, self.calls(who, command, *args, "--pull-request"))

    def does(self, who: str, command: str, *args: str, how: str | None = None) -> Result:
        """The same, merged."""
        done = self.calls(who, command, *args, "--pull-request")
        self.merged(self.proposed(who, done), how)
        return done

    def calls(self, who: str, command: str, *args: str) -> Result:
        done = self.people[who].run(command, *args)
        assert done.code == 0, (who, command, args, done.err)
        return done

    def proposed(self, who: str, done: Result) -> str:
        """The branch that a command has pushed; who ran it has what merges it."""
        [branch] = {*re.split(r"[\s:,]", done.err)} & (self.forge.branches() - {"cicd", "main"})
        [command] = re.findall("^or, where cicd takes pushes: (.+)$", done.err, re.M)
        self._typed[branch] = functools.partial(self.types, who, command)
        return branch

    def does_nothing(self, who: str, command: str, *args: str) -> None:
        done = self.people[who].run(command, *args, "--pull-request")
        assert (done.code, done.err.startswith("nothing to ")) == (0, True), done.err

    def pushes(self, who: str, command: str, *args: str) -> None:
        """A command that pushes, which the server refuses, and the one that is printed then, merged."""
        words = self.refused(who, command, *args)
        assert all(line in words for line in self.answer)
        [instead] = re.findall(r"`(python scripts/.+)`", words)
        self.merged(self.proposed(who, self.types(who, instead)), None)

    def edits(self, who: str, branch: str, edit: Callable[[Checkout], None], how: str | None = None) -> None:
        """Files that somebody writes, on a branch of their own."""
        checkout = self.people[who]
        checkout.git("fetch", "-q", "origin")
        checkout.git("checkout", "-q", "-b", branch, "origin/cicd")
        edit(checkout)
        checkout.commit(branch)
        checkout.git("push", "-q", "origin", branch)
        checkout.git("checkout", "-q", "cicd")
        self.merged(branch, how)

    def merged(self, branch: str, how: str | None) -> None:
        self.forge.merge(branch, how or next(self._how), self._typed.pop(branch, None))

    def refused(self, who: str, command: str, *args: str) -> str:
        checkout = self.people[who]
        before = checkout.state()
        done = checkout.run(command, *args)
        assert done.code == 1, (who, command, args, done.out)
        after = checkout.state()
        assert {**after, "refs": ""} == {**before, "refs": ""}
        return "\n".join(done.errors)

    def types(self, who: str, line: str) -> Result:
        """A command as it was printed: by bash, of who may write the branch. One of scripts/ runs in this process, as
        the clones have no code of their own."""
        if line.startswith("python "):
            _, script, *words = shlex.split(line)
            return self.calls(who, Path(script).stem, *words)
        done = subprocess.run(
            ["bash", "-ec", line], cwd=self.people[who].root, env=allowed(), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, (line, done.stderr)
        return Result(0, done.stdout, done.stderr)

    # What is right

    def check(self) -> None:
        checkout = next(self._watching)
        checkout.git("fetch", "-q", "--prune", "origin")
        done = checkout.run("releases", "--json")
        assert done.code == 0, done.err
        rows = json.loads(done.out)["releases"]
        found = {(row["app"], row["environment"], row["canary"]): (row["version"], row["image"]) for row in rows}
        assert {place: runs for place, runs in found.items() if runs[0] != UNRELEASED} == self.record

    # The steps of a month, and what they leave behind

    def release(self, who: str, app: str, version: Version, image: str | None = None, how: str | None = None) -> None:
        given = ["--image", image] if image else []
        self.does(who, "bump_model", "--app", app, "--env", "dev", "--model-uri", version.uri, *given, how=how)
        self.runs((app, "dev", None), version, image)

    def promote(self, who: str, app: str, to: str, canary: str | None = None, how: str | None = None) -> None:
        more = ["--canary", canary] if canary else []
        self.does(who, "promote_model", "--app", app, "--to", to, *more, how=how)
        before = self.environments[self.environments.index(to) - 1]
        self.record[app, to, canary] = self.record[app, before, None]
        self.check()

    def roll_back(self, who: str, app: str, env: str, reason: str, to: Runs, how: str | None = None) -> Result:
        done = self.does(who, "rollback_model", "--app", app, "--env", env, "--reason", reason, how=how)
        self.record[app, env, None] = to
        self.check()
        return done

    def unhold(self, who: str, app: str, env: str, how: str | None = None) -> None:
        self.does(who, "rollback_model", "--app", app, "--env", env, "--release-hold", how=how)
        self.check()

    def runs(self, place: Place, version: Version, image: str | None) -> None:
        self.record[place] = (version.version, image or self.record.get(place, ("", None))[1])
        self.check()


def image(number: int) -> str:
    return f"{REGISTRY}/lily-api@sha256:{str(number) * 64}"


def runs(version: Version, picture: str | None = None) -> Runs:
    return version.version, picture


def made(s3: S3, folder: Path, model: str, number: int) -> Version:
    version = package(folder / f"{model}-{number}", f"{model} {number}", model)
    s3.upload(version)
    return version


def to_everybody(team: Team, people: Sequence[str], app: str, version: Version, picture: str | None = None) -> None:
    """A version from the first environment to the last, by people in turn."""
    who = itertools.cycle(people)
    team.release(next(who), app, version, picture)
    for environment in team.environments[1:]:
        team.promote(next(who), app, environment)


def with_canary(checkout: Checkout) -> None:
    path = "overlays/prod/lily-sklearn/release.yaml"
    text = checkout.read(path).decode()
    checkout.write(path, text + like(example("canary"), text))


def without_canary(checkout: Checkout) -> None:
    path = "overlays/prod/lily-sklearn/release.yaml"
    text = checkout.read(path).decode()
    checkout.write(path, text.partition("  canary:\n")[0])


def with_perf(checkout: Checkout) -> None:
    """Another environment before production, as staging is one: by hand, as there is no command for it."""
    checkout.copy_environment("staging", "perf")
    for app in ("lily-api", "lily-batch", "lily-sklearn"):
        # As it was in the template: unreleased.
        text = git(checkout.root, "show", f"origin/main:overlays/staging/{app}/release.yaml")
        checkout.write(f"overlays/perf/{app}/release.yaml", f"{text}\n")
    for name in ("project", "applicationset", "sagemaker"):
        line = f"  - {name}-{{}}.yaml\n"
        last = line.format("prod")
        checkout.replace("argocd/kustomization.yaml", last, line.format("perf") + last)
    last = "  - name: prod\n"
    checkout.replace("overlays/promotion.yaml", last, f"  - name: perf\n    hosts: [perf.ml.example.com]\n{last}")
    bindings = "argocd/platform/admission/bindings.yaml"
    checkout.write(bindings, checkout.read(bindings).decode().replace("ml-staging", "ml-staging, ml-perf"))


def with_diabetes(checkout: Checkout) -> None:
    args = ("diabetes", "--shape", "inference-service", "--app", "diabetes-sklearn", "--only", "app")
    done = checkout.run("new_model", *args)
    assert done.code == 0, done.err


def test_a_month(template: Path, s3: S3, tmp_path: Path) -> None:
    team = Team(template, tmp_path, ["ann", "ben", "cleo", "dan"])
    lily = [made(s3, tmp_path, "lily", number) for number in range(1, 8)]
    first, second, third, bad, fifth, sixth, seventh = lily
    diabetes = [made(s3, tmp_path, "diabetes", number) for number in range(1, 3)]
    sk, api = "lily-sklearn", "lily-api"

    # First releases, and who pushes learns that the branch is protected, and what to run.
    to_everybody(team, ["ann", "ben"], sk, first)
    to_everybody(team, ["cleo", "dan"], api, first, image(1))
    for server, version in (("GitHub", second), ("GitLab", third)):
        team.protect(server)
        team.pushes("dan", "bump_model", "--app", sk, "--env", "dev", "--model-uri", version.uri, "--push")
        team.runs((sk, "dev", None), version, None)
        for environment in ("staging", "prod"):
            team.promote("ann", sk, environment)

    # Back twice from different clones, and forth: never to what was just left.
    team.roll_back("ben", sk, "prod", "worse", to=runs(second), how="squash")
    team.roll_back("cleo", sk, "prod", "worse as well", to=runs(first), how="rebase")
    assert "hold" in team.refused("ann", "promote_model", "--app", sk, "--to", "prod", "--pull-request")
    team.unhold("ben", sk, "prod", how="squash")
    team.promote("ann", sk, "prod")
    team.roll_back("dan", sk, "prod", "still worse", to=runs(first), how="squash")
    team.unhold("dan", sk, "prod")
    team.promote("ben", sk, "prod")

    # The image alone.
    to_everybody(team, ["cleo", "ben"], api, first, image(2))
    told = team.roll_back("ann", api, "prod", "slow", to=runs(first, image(1)))
    assert f"from {first.version} to {first.version}" not in told.err
    team.unhold("ann", api, "prod")
    team.promote("cleo", api, "prod")

    # A version that is withdrawn comes no further, and back everywhere.
    team.release("ben", sk, bad)
    team.promote("ben", sk, "staging")
    told = team.does("ann", "withdraw_version", "lily", bad.version, "--reason", "trained on the wrong year")
    team.check()
    assert "withdrawn" in team.refused("cleo", "promote_model", "--app", sk, "--to", "prod", "--pull-request")
    following = re.findall(r"^it runs as .+; next: python scripts/(\w+)\.py (.+)$", told.err, re.M)
    for environment, (command, words) in zip(("staging", "dev"), following, strict=True):
        team.pushes("dan", command, *shlex.split(words))
        team.record[sk, environment, None] = runs(third)
        team.check()
        team.unhold("cleo", sk, environment)

    # A canary in production, of what came through staging.
    team.edits("ann", "a-canary", with_canary)
    team.record[sk, "prod", "next"] = runs(third)
    team.release("ann", sk, fifth)
    team.promote("ben", sk, "staging")
    team.promote("ben", sk, "prod", canary="next")
    team.promote("cleo", sk, "prod")
    team.edits("dan", "no-canary", without_canary)
    del team.record[sk, "prod", "next"]
    team.check()

    # Another environment before production, where what ran before may come back.
    team.edits("cleo", "perf", with_perf, how="merge")
    team.environments.insert(2, "perf")
    team.roll_back("ann", sk, "prod", "not measured", to=runs(third), how="squash")
    team.unhold("ann", sk, "prod")
    team.promote("ben", sk, "perf")
    team.promote("ben", sk, "prod")
    team.promote("cleo", api, "perf")

    # Two people on one app.
    team.does_nothing("cleo", "bump_model", "--app", sk, "--env", "dev", "--model-uri", fifth.uri)
    theirs = team.asks("ann", "bump_model", "--app", sk, "--env", "dev", "--model-uri", sixth.uri)
    assert team.asks("ben", "bump_model", "--app", sk, "--env", "dev", "--model-uri", sixth.uri) == theirs
    other = team.asks("dan", "bump_model", "--app", sk, "--env", "dev", "--model-uri", seventh.uri)
    team.merged(theirs, "merge")
    team.record[sk, "dev", None] = runs(sixth)
    assert not team.forge.merges(other)
    assert team.asks("dan", "bump_model", "--app", sk, "--env", "dev", "--model-uri", seventh.uri) == other
    team.merged(other, "rebase")
    team.record[sk, "dev", None] = runs(seventh)
    team.check()

    # A day without protection: a commit here, a pull that merges what others did into it, a push.
    team.forge.open()
    ann, ben = team.people["ann"], team.people["ben"]
    for checkout in (ann, ben):
        checkout.git("checkout", "-q", "cicd")
        checkout.git("pull", "-q", "--no-rebase", "origin", "cicd")
    told = team.calls("ann", "bump_model", "--app", sk, "--env", "dev", "--model-uri", sixth.uri, "--commit")
    team.calls("ben", "bump_model", "--app", api, "--env", "dev", "--model-uri", second.uri, "--push")
    ann.git("pull", "-q", "--no-rebase", "--no-edit", "origin", "cicd")
    team.types("ann", *re.findall("^next: (.+)$", told.err, re.M))
    team.record[sk, "dev", None] = runs(sixth)
    team.runs((api, "dev", None), second, None)
    team.calls("cleo", "rollback_model", "--app", sk, "--env", "dev", "--reason", "hasty", "--push")
    team.record[sk, "dev", None] = runs(fifth)  # to go from the seventh to the sixth was to go back already
    team.check()
    team.protect("GitHub")
    team.unhold("cleo", sk, "dev")

    # Another model, and code that comes from main by a squash which has lost its trailer.
    team.edits("dan", "diabetes", with_diabetes)
    to_everybody(team, ["ann", "ben", "cleo", "dan"], "diabetes-sklearn", diabetes[0])
    team.release("ann", "diabetes-sklearn", diabetes[1])
    team.roll_back("ben", "diabetes-sklearn", "dev", "worse", to=runs(diabetes[0]))
    ben.git("checkout", "-q", "-B", "main", "origin/main")
    ben.write("model-src/models/lily/notes.md", "More of it.\n")
    ben.commit("Notes")
    ben.git("push", "-q", "origin", "main")
    ben.git("checkout", "-q", "cicd")
    team.does("cleo", "import_model_code", how="squash")
    team.does_nothing("dan", "import_model_code")
    team.check()

    # An app goes, from the last environment to the first.
    for environment in reversed(team.environments):
        team.does("ann", "retire_app", "--app", api, "--env", environment, "--reason", "nobody asks it")
        del team.record[api, environment, None]
        team.check()
