from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import S3, Checkout

import doctor

ACTIONS = 15368
CHECKS = "required_status_checks"


def missing(out: str) -> dict[str, str]:
    """Remedy by what is missing."""
    return {check["what"]: check["remedy"] for check in json.loads(out) if check["remedy"] and not check["unknown"]}


def test_a_clone_of_the_template_lacks_only_its_owners_values(checkout: Checkout, s3: S3) -> None:
    done = checkout.run("doctor", "--json", "--s3")

    assert done.code == 1
    assert missing(done.out) == {
        "git user.name": 'run `git config --global user.name "..."`',
        "git user.email": 'run `git config --global user.email "..."`',
        "no value of the template is left": "run `make init` with your values first;"
        " `python scripts/init_fork.py --check` lists what is left",
    }


def test_before_init_nothing_else_comes_first(checkout: Checkout) -> None:
    """A clone of main alone, as a fork is before `make init`."""
    checkout.git("checkout", "-q", "main")
    checkout.git("branch", "-D", "cicd")
    checkout.git("update-ref", "-d", "refs/remotes/origin/cicd")

    out = checkout.run("doctor").out

    assert out.index("run `make init` with your values first") < out.index("MISSING  branch cicd")
    assert "or start it with `make init`" in out
    assert "git branch" not in out


def test_what_is_missing_is_named_with_what_mends_it(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_GITOPS_CACHE", str(tmp_path))
    checkout.git("remote", "remove", "origin")
    checkout.write("overlays/dev/notes.yaml", "mine")

    out = checkout.run("doctor", "--s3").out.splitlines()

    for name, remedy in {
        "kustomize and kubeconform": "run `make setup`",
        "schemas": "run `make setup`",
        "remote origin": "run `git remote add origin URL`",
        "nothing uncommitted in what is deployed": "overlays/dev/notes.yaml: uncommitted change; commit it,"
        " or put it away with `git stash`",
        "s3://mlops-prod": "s3://mlops-prod/models/: no AWS credentials; set AWS_ACCESS_KEY_ID and"
        " AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    }.items():
        assert out[out.index(f"MISSING  {name}") + 1] == f"         {remedy}"


def test_a_folder_that_is_no_repository_is_said_to_be_none(tmp_path: Path) -> None:
    from conftest import run

    done = run("doctor", "--root", tmp_path)

    assert done.code == 1
    assert f"         {tmp_path}: not a git repository; clone one, or name it with --root" in done.out.splitlines()


# GitHub


def ruleset(branch: str, *checks: str) -> list[dict[str, Any]]:
    """The rules of a branch as `GET /repos/{owner}/{repo}/rules/branches/{branch}` gives them."""
    parameters = {
        "pull_request": {"required_approving_review_count": 0, "require_code_owner_review": True}
        | {"dismiss_stale_reviews_on_push": True},
        "required_status_checks": {"strict_required_status_checks_policy": True}
        | {"required_status_checks": [{"context": name, "integration_id": ACTIONS} for name in checks]},
    }
    kinds = ("deletion", "non_fast_forward", *parameters)
    number = len(branch)
    return [
        {"type": kind, "ruleset_id": number, "ruleset_source_type": "Repository", "ruleset_source": "acme/models"}
        | ({"parameters": parameters[kind]} if kind in parameters else {})
        for kind in kinds
    ]


@pytest.fixture
def github(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What a server answers as GitHub's API does, by path; all of it as it should be. Without an answer, 404."""
    answers: dict[str, Any] = {
        "": {"default_branch": "cicd", "allow_auto_merge": True, "permissions": {"admin": True}},
        "/rules/branches/cicd": ruleset("cicd", "Judge", "Checks for cicd"),
        "/rules/branches/main": ruleset("the main", "Checks for main"),
        "/rulesets/4": {"id": 4, "name": "deployed", "bypass_actors": []},
        "/rulesets/8": {"id": 8, "name": "models", "bypass_actors": []},
        "/codeowners/errors": {"errors": []},
    }
    for name in ("dev", "monitoring", "prune"):
        answers[f"/environments/{name}"] = {
            "deployment_branch_policy": {"protected_branches": False, "custom_branch_policies": True}
        }
        answers[f"/environments/{name}/deployment-branch-policies"] = {
            "total_count": 1, "branch_policies": [{"id": 1, "name": "cicd", "type": "branch"}],
        }  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0].removeprefix("/repos/acme/models")
            status = 401 if self.headers["Authorization"] != "Bearer a-token" else 200 if path in answers else 404
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answers.get(path)).encode() if status == 200 else b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    # It starts a process, and what it finds is asked above.
    monkeypatch.setattr(doctor, "own_values", lambda _: iter(()))
    checkout.git("remote", "set-url", "origin", "git@github.com:acme/models.git")
    checkout.replace("overlays/promotion.yaml", "- name: prod\n", "- name: prod\n    owners: ['@acme/platform']\n")
    checkout.replace("overlays/promotion.yaml", "environments:\n", "automation: bot\nenvironments:\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("GITHUB_TOKEN", "a-token")
        yield answers
        server.shutdown()


def at_github(checkout: Checkout) -> dict[str, str]:
    found = missing(checkout.run("doctor", "--json").out)
    return {what.removeprefix("GitHub: "): remedy for what, remedy in found.items() if "GitHub" in what}


def test_the_rules_that_the_checks_rely_on_are_all_there(checkout: Checkout, github: dict[str, Any]) -> None:
    assert at_github(checkout) == {}
    assert sum(line.startswith("ok       GitHub: ") for line in checkout.run("doctor").out.splitlines()) == 20


def parameters(branch: str, kind: str) -> Callable[[dict[str, Any]], Any]:
    return lambda answers: next(r for r in answers[f"/rules/branches/{branch}"] if r["type"] == kind)["parameters"]


def without(branch: str, kind: str) -> Callable[[dict[str, Any]], object]:
    rules = f"/rules/branches/{branch}"
    return lambda answers: answers.update({rules: [rule for rule in answers[rules] if rule["type"] != kind]})


@pytest.mark.parametrize(
    ("fault", "what", "remedy"),
    [
        (lambda a: a[""].update(default_branch="main"), "default branch cicd", "make cicd the default branch"),
        (lambda a: a[""].pop("allow_auto_merge"), "auto-merge", "allow auto-merge"),
        (without("cicd", "deletion"), "cicd: is never deleted", "restrict deletions"),
        (without("main", "non_fast_forward"), "main: is never forced", "block force pushes"),
        (without("main", "pull_request"), "main: changes come by pull request", "require a pull request"),
        (
            lambda a: parameters("cicd", "pull_request")(a).update(require_code_owner_review=False),
            "cicd: code owners approve what is merged",
            "require review from code owners",
        ),
        (
            lambda a: parameters("cicd", "pull_request")(a).update(dismiss_stale_reviews_on_push=False),
            "cicd: code owners approve what is merged",
            "dismiss stale approvals",
        ),
        (
            lambda a: parameters("cicd", CHECKS)(a)[CHECKS].pop(0),
            "cicd: the check Judge is required",
            "require the status check 'Judge' with GitHub Actions as its source",
        ),
        (
            lambda a: parameters("main", CHECKS)(a)[CHECKS][0].pop("integration_id"),
            "main: the check Checks for main is required",
            "with GitHub Actions as its source",
        ),
        (
            lambda a: parameters("cicd", CHECKS)(a).update(strict_required_status_checks_policy=False),
            "cicd: checks are of the newest state",
            "or a merge queue",
        ),
        (
            lambda a: a["/rulesets/4"]["bypass_actors"].append({"actor_type": "Integration", "actor_id": 7}),
            "cicd: nobody bypasses the ruleset deployed",
            "take out of the bypass list: Integration 7",
        ),
        (
            lambda a: a["/rulesets/8"].pop("bypass_actors"),
            "main: nobody bypasses the ruleset models",
            "cannot see the bypass list",
        ),
        (
            lambda a: a["/codeowners/errors"]["errors"].append({"line": 2, "message": "Unknown owner\nat @acme/x"}),
            ".github/CODEOWNERS: all owners are known",
            "line 2: Unknown owner at @acme/x; an unknown owner owns nothing",
        ),
        (
            lambda a: a["/environments/dev"].update(deployment_branch_policy=None),
            "environment dev: cicd alone deploys to it",
            "any branch",
        ),
        (
            lambda a: a["/environments/dev/deployment-branch-policies"]["branch_policies"].append({"name": "c*"}),
            "environment dev: cicd alone deploys to it",
            "deployment branches are branch cicd, branch c*",
        ),
        (
            lambda a: a.pop("/environments/monitoring"),
            "environment monitoring: cicd alone deploys to it",
            "make it, with the deployment branch cicd alone",
        ),
    ],
)  # fmt: skip
def test_a_rule_that_is_not_there_is_named_with_what_mends_it(
    checkout: Checkout, github: dict[str, Any], fault: Callable[[dict[str, Any]], object], what: str, remedy: str
) -> None:
    fault(github)

    found = at_github(checkout)

    assert list(found) == [what]
    assert remedy in found[what]


def test_a_merge_queue_is_as_good_as_a_strict_check(checkout: Checkout, github: dict[str, Any]) -> None:
    parameters("cicd", CHECKS)(github)["strict_required_status_checks_policy"] = False
    github["/rules/branches/cicd"].append({"type": "merge_queue", "ruleset_id": 4, "parameters": {}})

    assert at_github(checkout) == {}


def test_nothing_is_there_where_no_rule_is(checkout: Checkout, github: dict[str, Any]) -> None:
    for path in list(github):
        github.pop(path)
    github[""] = {"permissions": {"admin": True}}

    assert len(at_github(checkout)) == 18


@pytest.mark.parametrize("repository", [None, {"permissions": {"admin": False}}, {}])
def test_what_a_token_may_not_see_is_not_taken_for_missing(
    checkout: Checkout, github: dict[str, Any], repository: dict[str, Any] | None
) -> None:
    github.pop("/codeowners/errors")
    github.pop("")
    if repository is not None:
        github[""] = repository | {"default_branch": "cicd", "allow_auto_merge": True}

    [(what, remedy)] = at_github(checkout).items()

    assert what == "rules of the branches, code owners and environments on GitHub"
    assert "404: not there, or not for this token; use a token of an administrator" in remedy


def protection(*checks: str) -> dict[str, Any]:
    """A classic branch protection as `GET /repos/{owner}/{repo}/branches/{branch}/protection` gives it."""
    return {
        "required_status_checks": {"strict": True, "checks": [{"context": name, "app_id": ACTIONS} for name in checks]},
        "required_pull_request_reviews": {
            "dismiss_stale_reviews": True,
            "require_code_owner_reviews": True,
            "bypass_pull_request_allowances": {"users": [], "teams": [], "apps": []},
        },
        "enforce_admins": {"enabled": True},
        "allow_force_pushes": {"enabled": False},
        "allow_deletions": {"enabled": False},
    }


@pytest.fixture
def classic(github: dict[str, Any]) -> dict[str, Any]:
    """GitHub with classic protections in the place of rulesets; that of cicd."""
    github |= {"/rules/branches/cicd": [], "/rules/branches/main": []}
    github["/branches/main/protection"] = protection("Checks for main")
    github["/branches/cicd/protection"] = protection("Judge", "Checks for cicd")
    found: dict[str, Any] = github["/branches/cicd/protection"]
    return found


def test_a_classic_protection_is_as_good_as_a_ruleset(checkout: Checkout, classic: dict[str, Any]) -> None:
    assert at_github(checkout) == {}


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (lambda p: p.pop("required_pull_request_reviews"), "changes come by pull request"),
        (lambda p: p["allow_force_pushes"].update(enabled=True), "is never forced"),
        (lambda p: p["allow_deletions"].update(enabled=True), "is never deleted"),
        (lambda p: p[CHECKS].update(strict=False), "checks are of the newest state"),
        (lambda p: p[CHECKS]["checks"].pop(), "the check Checks for cicd is required"),
        (lambda p: p[CHECKS]["checks"][0].update(app_id=-1), "the check Judge is required"),
        (lambda p: p[CHECKS]["checks"][0].update(app_id=None), "the check Judge is required"),
        (
            lambda p: p["required_pull_request_reviews"].update(require_code_owner_reviews=False),
            "code owners approve what is merged",
        ),
    ],
)
def test_what_a_classic_protection_lacks_is_named(
    checkout: Checkout, classic: dict[str, Any], fault: Callable[[dict[str, Any]], object], what: str
) -> None:
    fault(classic)

    assert f"cicd: {what}" in at_github(checkout)


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        (lambda p: p["enforce_admins"].update(enabled=False), "administrators may"),
        (
            lambda p: p["required_pull_request_reviews"]["bypass_pull_request_allowances"].update(
                users=[{"login": "ann"}], apps=[{"slug": "bot"}]
            ),
            "bypass required pull requests`: ann, bot",
        ),
    ],
)
def test_a_classic_protection_that_somebody_bypasses_holds_nothing(
    checkout: Checkout,
    github: dict[str, Any],
    classic: dict[str, Any],
    fault: Callable[[dict[str, Any]], object],
    remedy: str,
) -> None:
    fault(classic)
    found = at_github(checkout)
    github["/rules/branches/cicd"] = ruleset("cicd", "Judge", "Checks for cicd")

    assert remedy in found["cicd: nobody bypasses the branch protection"]
    assert "cicd: changes come by pull request" in found
    assert at_github(checkout) == {}


def test_what_was_not_looked_at_is_no_fault_and_not_called_good(
    checkout: Checkout, github: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    what = "rules of the branches, code owners and environments on GitHub"
    monkeypatch.setenv("GITHUB_TOKEN", "another")
    assert "401" in at_github(checkout)[what]
    monkeypatch.delenv("GITHUB_TOKEN")
    assert f"unknown  {what}: not looked at" in checkout.run("doctor").out.splitlines()
    checkout.git("remote", "set-url", "origin", "https://git.example.org/acme/models.git")
    assert f"unknown  {what}: origin is elsewhere" in checkout.run("doctor").out.splitlines()


def test_a_team_without_owners_is_told_that_nobody_approves(checkout: Checkout, github: dict[str, Any]) -> None:
    checkout.replace("overlays/promotion.yaml", "    owners: ['@acme/platform']\n", "")
    parameters("cicd", "pull_request")(github).update(require_code_owner_review=False)

    assert at_github(checkout) == {}
    line = "ok       GitHub: cicd: nobody has to approve; overlays/promotion.yaml names no owners"
    assert line in checkout.run("doctor").out.splitlines()
