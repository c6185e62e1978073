"""Make this template your team's own: put your values in the place of the template's, commit, and start cicd.

Every file of the fork's own that has a value of the template's is changed. What the template brings stays as it is, so
that its updates never conflict with your values. The file .template records the values, and the commit of the template.
Running it again with the same values changes nothing, with others it changes them. --check lists what is still the
template's and not chosen.

  python scripts/init_fork.py --repo https://github.com/acme/models.git --bucket acme-models \\
      --account 444455556666 --region eu-central-1 --domain ml.acme.com --cluster acme-ml \\
      --network 10.20.0.0/16 --time-zone Europe/Berlin --owner ml@acme.com --push
  python scripts/init_fork.py --check
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence

from gitops import cli
from gitops.repo import layout, publish, snapshot, template, values
from gitops.repo.git import Git

from contract.errors import Refused

ADDRESS = r"(https://|ssh://|git@)[^\s'\"]+"
# Each value's form, and what it is.
FORMS = {
    "repo": (ADDRESS, "an address that git can clone"),
    "bucket": (r"[a-z][a-z0-9-]{1,61}[a-z0-9]", "a bucket's name, without dots and starting with a letter"),
    "account": (r"[0-9]{12}", "the 12 digits of an AWS account"),
    "region": (r"[a-z]{2}(-[a-z]+)+-[0-9]", "an AWS region such as eu-west-1"),
    "domain": (r"([a-z0-9-]+\.)+[a-z]{2,}", "a domain such as ml.example.com"),
    "registry": (
        r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*",
        "a registry without a scheme",
    ),
    "cluster": (r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", "the name of an EKS cluster"),
    "network": (r"([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,2}", "the addresses of the VPC, such as 10.0.0.0/16"),
    "time_zone": (r"[A-Za-z_]+(/[A-Za-z0-9_+-]+)*", "a time zone such as Europe/Dublin"),
    "owner": (r"[^\s@'\"]+@[^\s@'\"]+", "the mail address of those who own the models"),
}
# What the manifests have somewhere certain.
OPTIONAL = ("registry", "cluster", "network", "time_zone", "owner")
# Domains that are nobody's. Source: RFC 2606, section 3
EXAMPLE = re.compile(r"[\w.@-]*\bexample\.(?:com|net|org)\b|\bexample-org\b")


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, dry_run=True)
    for name, (_, meaning) in FORMS.items():
        default = " (default: ECR of the account and region)" if name == "registry" else ""
        parser.add_argument(option(name), help=f"{meaning}{default}")
    parser.add_argument("--push", action="store_true", help="push main and cicd to origin")
    parser.add_argument("--check", action="store_true", help="list what is still the template's, and change nothing")
    args = parser.parse_args(argv)
    given = [name for name in FORMS if getattr(args, name)]
    if args.check and given:
        parser.error("--check takes no values")
    if not args.check and (missing := [name for name in FORMS if name not in (*given, *OPTIONAL)]):
        parser.error(f"missing: {', '.join(map(option, missing))}")
    return cli.run(check if args.check else init, args)


def init(args: argparse.Namespace) -> None:
    git = Git(args.root)
    if args.push:
        publish.require_remote(git)
    git.require_clean()
    wanted = {name: getattr(args, name) for name in FORMS if getattr(args, name)}
    faults = [
        f"{option(name)} {value}: not {FORMS[name][1]}"
        for name, value in wanted.items()
        if not re.fullmatch(FORMS[name][0], value)
    ]
    if faults:
        raise Refused(*faults)
    wanted.setdefault("registry", f"{args.account}.dkr.ecr.{args.region}.amazonaws.com")
    head, branch = git.commit("HEAD"), git.branch()
    if head is None or branch is None:
        raise Refused(f"{args.root}: no branch is checked out; run `git checkout main` first")
    here = snapshot.Snapshot(git.root)
    record = template.read_record(here.read(template.RECORD)) or template.Record(head)
    current = current_values(here, record)
    made = template.Record(record.commit, {**record.values, **wanted})
    if own := values.owners(here):
        current["owners"], wanted["owners"] = own, f"@{organisation(args.repo)}"
    files = replaced(git, current, wanted)
    if here.read(template.RECORD) != made.text:
        files[template.RECORD] = made.text
    for name, value in wanted.items():
        state = "already" if current[name] == value else f"instead of {current[name]}"
        cli.say(f"  {name:9} {value} ({state})")
    if args.dry_run:
        print(*files, sep="\n")
        return
    if files:
        tree = git.tree_with(head, files)
        git.advance(branch, head, git.commit_tree(tree, head, "Put our values in the place of the template's\n"))
        cli.say(f"committed {len(files)} files to {branch}")
    else:
        cli.say("every file has these values already")
    start_cicd(git, args.push)
    if args.push:
        for branch in ("main", publish.BRANCH):
            if commit := git.commit(f"refs/heads/{branch}"):
                git.push(publish.REMOTE, commit, branch)
    print(STEPS.format(**wanted, roles="".join(f"    {line}\n" for line in roles(here))), end="")


def current_values(here: snapshot.Snapshot, record: template.Record) -> dict[str, str]:
    """Those that the files have. Raises Refused for one that is needed and found nowhere."""
    known = {**record.values, **values.found(here)}
    for name in values.REQUIRED:
        if name not in known:
            values.find(here, name)
    return values.TEMPLATE | known


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def organisation(repo: str) -> str:
    """Whose repository it is, by its address: https://HOST/ORGANISATION/NAME.git or git@HOST:ORGANISATION/NAME.git."""
    return re.split("[/:]", repo.rstrip("/"))[-2]


def start_cicd(git: Git, push: bool) -> None:
    """Makes the branch where it does not exist yet."""
    if push:
        remote = git.remote_tip(publish.REMOTE, publish.BRANCH)
        if remote and git.commit(f"refs/heads/{publish.BRANCH}") is None:
            git.fetch(publish.REMOTE, publish.BRANCH)
    known = (f"refs/heads/{publish.BRANCH}", f"refs/remotes/{publish.REMOTE}/{publish.BRANCH}")
    if any(git.commit(name) for name in known):
        cli.say(f"the branch {publish.BRANCH} is there already; if it has the old values, run this on it too")
        return
    git.text("update-ref", f"refs/heads/{publish.BRANCH}", git.commit("HEAD") or "", "")
    cli.say(f"made the branch {publish.BRANCH}")


def replaced(git: Git, current: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, bytes | None]:
    """The files that change, with their new bytes."""
    new = values.replacing(current, wanted)
    old = {path: (git.root / path).read_bytes() for path in _files(git)}
    return {path: text for path, data in old.items() if (text := new(data)) != data}


def _files(git: Git) -> list[str]:
    return [path for path in git.files("HEAD") if layout.owned_by_fork(path) and (git.root / path).is_file()]


def roles(tree: snapshot.Snapshot) -> list[str]:
    """What each IAM role needs that an overlay names, one a line."""
    lines = []
    for path in tree.files(*(f"overlays/{environment}" for environment in tree.policy.environments)):
        _, environment, folder, *_ = path.split("/")
        uses = f"gets below models/ in that bucket, and puts below requests/{environment}/"
        for role in re.findall(r"arn:aws:iam::[0-9]{12}:role/(\S+)", (tree.read(path) or b"").decode()):
            lines.append(f"IAM role {role}: {uses if folder == 'shared' else f'that and what {path} says'}.")
    return lines


def check(args: argparse.Namespace) -> None:
    if found := leftovers(Git(args.root)):
        raise Refused(*found, "`python scripts/init_fork.py --help` tells how to put your values there")
    print("no value of the template is left")


def leftovers(git: Git) -> list[str]:
    """A line for each value of the template that a file still has and nobody has chosen, and for each domain that is
    nobody's."""
    record = template.read_record(snapshot.Snapshot(git.root).read(template.RECORD))
    chosen = record.values if record else {}
    patterns = {
        name: re.compile(values.pattern(name, value), re.M)
        for name, value in values.TEMPLATE.items()
        if chosen.get(name) != value
    }
    found = []
    for path in _files(git):
        try:
            lines = (git.root / path).read_text().splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, 1):
            names = [name for name, pattern in patterns.items() if pattern.search(line)]
            found += [f"{path}: line {number}: {name}: {values.TEMPLATE[name]} is the template's" for name in names]
            example = EXAMPLE.search(line)
            if example and not names and not any(value in line for value in chosen.values()):
                found.append(f"{path}: line {number}: {example[0]} is nobody's; write your own")
    return found


STEPS = """\
What is left to do by hand:
  The teams of your organisation in overlays/promotion.yaml (owners), then python scripts/codeowners.py
  GitHub, Settings of {repo}
    Default branch: cicd.
    Rulesets, without anyone who bypasses them: README.md, "Branches", tells which rules cicd and main need.
    Environments: dev, monitoring, prune; each with the deployment branch cicd alone.
    A GitHub App that may write contents and pull requests, installed on this repository, which proposes releases: its
    id in the variable RELEASE_APP_ID, its key in the secret RELEASE_APP_KEY of the environment dev, its login in
    overlays/promotion.yaml as automation. Allow auto-merge.
    GITHUB_TOKEN=... python scripts/doctor.py asks GitHub whether all of this is so.
    Variables: AWS_REGION = {region}, AWS_MODEL_WRITER_ROLE, AWS_MODEL_READER_ROLE and AWS_MONITOR_ROLE = the roles
    below.
  AWS, account {account}: python scripts/stacks.py prints what makes all of this, docs/aws.md tells how; or by hand
    An S3 bucket {bucket} in {region}: versioned, private, with a policy that refuses puts without If-None-Match,
    and a rule that ends uploads left incomplete for a day.
    Two IAM roles for the pipeline that GitHub's OIDC may take on for the environment dev: one that puts and gets in
    that bucket, one that only gets.
    One for the environment monitoring: lists that bucket, gets below models/ and requests/.
{roles}    Certificates in ACM and a zone in Route 53 for *.{domain}.
    IAM roles aws-load-balancer-controller, cluster-autoscaler, external-dns, external-secrets, and those of ACK, for
    the add-ons of argocd/platform/aws/.
  The cluster
    python scripts/bootstrap.py
  python scripts/init_fork.py --check lists the template's values that are left, of what was not given here
"""


if __name__ == "__main__":
    raise SystemExit(main())
