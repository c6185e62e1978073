"""The three ways of a change to cicd: each command prints what happened, and every command that it prints
to run next works as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import (
    IMAGE,
    PROTECTED,
    S3,
    Checkout,
    Result,
    Version,
    clone,
    git,
    in_folder,
    make_checkout,
    package,
    protect,
    run,
    write_release,
)

from gitops.releases.hold import Hold
from gitops.releases.hold import path as hold_path
from gitops.releases.hold import write as hold_text
from gitops.releases.release import Target
from gitops.repo import layout, ways

WHY = ("--reason", 'wrong answers; it\'s "bad"')
BAD = "2026-01-01-aaaaaaaaaaaa"
# A file that each changes, to be found in what has it.
COMMANDS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "release 2026": (("bump_model", "--app", "lily-sklearn", "--env", "dev", "--model-uri", "URI"),
             "overlays/dev/lily-sklearn/release.yaml"),
    "promote": (("promote_model", "--app", "lily-api", "--to", "staging"), "overlays/staging/lily-api/release.yaml"),
    "roll back": (("rollback_model", "--app", "lily-api", "--env", "dev", *WHY), "overlays/dev/lily-api/hold.yaml"),
    "release the hold": (("rollback_model", "--app", "lily-batch", "--env", "prod", "--release-hold"),
                "overlays/prod/lily-batch/hold.yaml"),
    "withdraw": (("withdraw_version", "lily", BAD, *WHY), layout.WITHDRAWN),
    "take": (("retire_app", "--app", "lily-sklearn", "--env", "prod", *WHY), "overlays/prod/retired.yaml"),
    "import": (("import_model_code",), "model-src/new.py"),
}  # fmt: skip
ANSWERS = PROTECTED | {"a hook of one's own": ("Ask the platform team, room 101.",)}


@pytest.fixture(scope="module")
def started(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which each command has something to do."""
    made = make_checkout(template, tmp_path_factory.mktemp("started"))
    for content in ("one", "two"):
        version = package(made.root.parent / content, content)
        write_release(made.root, Target("lily-api", "dev"), version, "onnx", IMAGE)
        if content == "one":
            write_release(made.root, Target("lily-api", "staging"), version, "onnx", IMAGE)
        made.commit(f"Release {content}")
    hold = hold_text("lily-batch", "prod", Hold("a test", "Test", "2026-01-01T00:00:00Z"))
    made.write(hold_path("lily-batch", "prod"), hold)
    made.commit("Hold", push=True)
    made.git("checkout", "-q", "main")
    made.write("model-src/new.py", "new\n")
    made.commit("New code", push=True)
    return made.remote


@pytest.fixture
def versions(tmp_path: Path, s3: S3) -> list[Version]:
    made = [package(tmp_path / content, content) for content in ("one", "two")]
    for version in made:
        s3.upload(version)
    return made


@pytest.fixture
def checkout(started: Path, tmp_path: Path) -> Checkout:
    return make_checkout(started, tmp_path)


def call(checkout: Checkout, versions: list[Version], name: str, *options: str) -> Result:
    (command, *args), _ = COMMANDS[name]
    return checkout.run(command, *(versions[0].uri if arg == "URI" else arg for arg in args), *options)


def shell(command: str, *, as_process: bool = False) -> str:
    """Runs a command as it was printed. Returns its stderr. One of scripts/ runs in this process, where not told
    otherwise: to start one takes half a second."""
    if command.startswith("python ") and not as_process:
        _, script, *words = shlex.split(command)
        ran = run(Path(script).stem, *words)
        assert ran.code == 0, f"{command}\n{ran.err}"
        return ran.err
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", command], env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stderr


def printed(said: str) -> list[str]:
    """The commands that are to be run next."""
    return re.findall(r"^(?:next|or, where cicd takes pushes): ((?:\(cd|git|python) .*)$", said, re.M)


def changed(checkout: Checkout, rev: str) -> list[str]:
    """What a commit of the remote or of this clone has changed, as a merge or alone."""
    return checkout.git("diff", "--name-only", f"{rev}^1", rev).split()


@pytest.mark.parametrize("checked_out", ["cicd", "main"])
def test_a_commit_is_here_alone_until_the_next_command_pushes_it(
    checkout: Checkout, versions: list[Version], checked_out: str
) -> None:
    checkout.git("checkout", "-q", checked_out)
    for name, (_, file) in COMMANDS.items():
        before = checkout.tip()

        done = call(checkout, versions, name, "--commit")

        commit = checkout.git("rev-parse", "cicd")
        assert done.code == 0, done.err
        assert done.err.startswith(f"committed {commit[:12]} to cicd here, not pushed: {name}")
        assert checkout.tip() == before == checkout.git("rev-parse", f"{commit}^")
        assert file in changed(checkout, commit)
        assert printed(done.err) == [in_folder(checkout.root, "git push origin cicd")]
        [other] = re.findall(r"^or, where cicd takes pull requests alone: (python .*)$", done.err, re.M)
        if checked_out == "main":
            assert f" at origin, not merged: {name}" in shell(other)
        shell(*printed(done.err))
        assert checkout.tip() == commit


def test_a_push_is_at_origin_and_nothing_comes_next(checkout: Checkout, versions: list[Version]) -> None:
    for name in COMMANDS.keys() - {"promote", "take"}:
        before = checkout.tip()

        done = call(checkout, versions, name, "--push")

        assert done.code == 0, done.err
        assert done.err.startswith(f"pushed {checkout.tip()[:12]} to cicd at origin: {name}")
        assert (checkout.git("rev-parse", f"{checkout.tip()}^"), printed(done.err)) == (before, [])


@pytest.mark.parametrize("option", ["--pull-request", "--push"])
def test_a_branch_is_at_origin_and_the_next_command_merges_it(
    checkout: Checkout, versions: list[Version], option: str
) -> None:
    for name in COMMANDS if option == "--pull-request" else ("promote", "take"):
        before = checkout.tip()

        done = call(checkout, versions, name, option)

        assert done.code == 0, done.err
        match = re.match(rf"pushed (\w{{12}}) to (\S+) at origin, not merged: {name}", done.err)
        assert match, done.err
        assert checkout.tip(match[2])[:12] == match[1]
        assert checkout.tip() == before == checkout.git("rev-parse", f"{match[1]}^")
        assert f"next: open a pull request of {match[2]} to cicd and merge it\n" in done.err
        again = call(checkout, versions, name, option)
        assert again.err.startswith(f"{match[2]} at origin has {match[1]} already, not merged: {name}")
        assert printed(again.err) == printed(done.err)
        shell(*printed(done.err))
        assert COMMANDS[name][1] in changed(checkout, checkout.tip())
        assert checkout.git("symbolic-ref", "--short", "HEAD") == "cicd"


def test_what_is_edited_or_made_here_says_so_and_its_next_command_brings_it_on(
    checkout: Checkout, versions: list[Version]
) -> None:
    for name in ("release 2026", "withdraw"):
        done = call(checkout, versions, name)
        file = COMMANDS[name][1]
        assert (done.code, checkout.git("status", "--porcelain")) == (0, f"M {file}"), done.err
        assert done.err.startswith(f"edited {file}, not committed: {name}")
        shell(*printed(done.err))
        assert changed(checkout, "HEAD") == [file]
        assert checkout.git("status", "--porcelain") == ""
    checkout.git("reset", "-q", "--hard", "origin/cicd")
    for name in ("promote", "take"):
        done = call(checkout, versions, name)
        match = re.match(rf"committed (\w{{12}}) to (\S+) here, not pushed: {name}", done.err)
        assert match, done.err
        assert checkout.git("rev-parse", "--short=12", match[2]) == match[1]
        assert git(checkout.remote, "branch", "--list", match[2]) == ""
        shell(*printed(done.err))
        assert checkout.tip(match[2])[:12] == match[1]


@pytest.mark.parametrize("server", ANSWERS)
def test_where_cicd_takes_no_push_its_words_come_with_a_command_that_proposes_the_same(
    checkout: Checkout, versions: list[Version], server: str
) -> None:
    protect(checkout.remote, ANSWERS[server])
    tip = checkout.tip()
    for name in COMMANDS.keys() - {"promote", "take"} if server == "GitHub" else ("roll back", "release the hold"):
        before = checkout.state()
        done = call(checkout, versions, name, "--push")
        assert (done.code, done.out) == (1, "")
        assert all(line in done.err for line in ANSWERS[server])
        assert checkout.state() == before

        [command] = re.findall(r"propose the same with `(python .*)`$", done.err, re.M)
        said = shell(command, as_process=server == "GitLab")

        match = re.match(rf"pushed (\w{{12}}) to (\S+) at origin, not merged: {name}", said)
        assert match, said
        assert COMMANDS[name][1] in changed(checkout, match[1])
        assert checkout.tip() == tip


def test_a_dry_run_says_what_would_be_in_every_way_and_does_nothing(
    checkout: Checkout, versions: list[Version]
) -> None:
    before = checkout.state()
    for name in COMMANDS:
        for option in ("--commit", "--push", "--pull-request"):
            done = call(checkout, versions, name, option, "--dry-run")
            assert done.code == 0, done.err
            assert done.err.startswith(f"would {name}")
            assert (", by the branch " in done.err) == (
                option == "--pull-request" or (option == "--push" and name in ("promote", "take"))
            )
            assert printed(done.err) == []
    assert checkout.state() == before


@pytest.mark.parametrize("way", ["commit", "push", "pull-request"])
def test_the_policy_names_the_way_where_no_option_does(checkout: Checkout, versions: list[Version], way: str) -> None:
    policy = "overlays/promotion.yaml"
    checkout.write(policy, checkout.read(policy) + f"publish: {way}\n".encode())
    tip = checkout.commit("Choose the way", push=True)

    ways_of = {}
    for name in ("release 2026", "promote", "roll back"):
        done = call(checkout, versions, name, "--json")
        assert done.code == 0, done.err
        ways_of[name] = json.loads(done.out)["way"]

    assert ways_of == {
        "release 2026": way, "roll back": way, "promote": "pull-request" if way == "push" else way,
    }  # fmt: skip
    assert (checkout.tip() == tip) == (way != "push")
    done = call(checkout, versions, "withdraw", "--commit")
    expected = (
        r"python scripts/withdraw_version.py .* --pull-request" if way == "pull-request" else r".*git push origin"
    )
    assert re.match(expected, *printed(done.err))
    if way == "pull-request":
        assert shell(*printed(done.err)).count(" to withdraw/lily-2026-01-01-aaaaaaaaaaaa at origin") == 1


@pytest.mark.parametrize("options", [("--push", "--pull-request"), ("--pull-request", "--commit")])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_change_goes_one_way(name: str, options: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        __import__(COMMANDS[name][0][0]).main([*COMMANDS[name][0][1:], *options])

    assert ended.value.code == 2


def test_a_push_takes_a_commit_in(checkout: Checkout, versions: list[Version]) -> None:
    for options in (("--commit", "--push"), ("--push", "--commit")):
        done = call(checkout, versions, "withdraw", *options, "--dry-run", "--json")
        assert json.loads(done.out)["way"] == "push"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("https://github.com/acme/models.git", "https://github.com/acme/models/compare/cicd...a/b?expand=1"),
        ("https://user:secret@github.com/acme/models", "https://github.com/acme/models/compare/cicd...a/b?expand=1"),
        ("git@github.com:acme/models.git", "https://github.com/acme/models/compare/cicd...a/b?expand=1"),
        ("ssh://git@github.acme.com:22/acme/models", "https://github.acme.com/acme/models/compare/cicd...a/b?expand=1"),
        (
            "git@gitlab.com:acme/ml/models.git",
            "https://gitlab.com/acme/ml/models/-/merge_requests/new?"
            "merge_request%5Bsource_branch%5D=a%2Fb&merge_request%5Btarget_branch%5D=cicd",
        ),
        ("https://git.acme.com/github/models.git", None),
        ("/srv/github.com/models.git", None),
        ("../github.com/models.git", None),
        ("file:///srv/github.com/models.git", None),
    ],
)
def test_the_page_of_a_pull_request_is_made_of_the_remotes_address(address: str, url: str | None) -> None:
    assert ways._pull_request(address, "a/b") == url


@pytest.mark.usefixtures("s3")
def test_who_reads_is_never_stopped_by_a_diverged_cicd(checkout: Checkout) -> None:
    other = clone(checkout.remote, "other")
    other.write("README.md", "theirs\n")
    other.commit(push=True)
    checkout.write("README.md", "mine\n")
    checkout.commit()
    checkout.git("fetch", "-q")

    for command in ("releases", "list_versions", "validate", "render"):
        done = checkout.run(command, *(["--model", "lily"] if command == "list_versions" else []))
        assert done.code == 0, (command, done.err)
