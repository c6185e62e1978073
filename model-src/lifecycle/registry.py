"""Keep MLflow's model registry in step with what runs where.

`python scripts/sync_registry.py` calls this with what Git has, as one JSON object on stdin: by registered model

  environments   names, in the order of promotion
  production     those of them that are production
  releases       what runs, newest release first: environment, app, canary (or null), version, digest, mlflow_run
  ran            [version, digest] of all that ever ran

On stdout it writes a line of JSON with what will change and which releases the registry does not know, then makes the
changes, then writes a second line. It uses the registry of MLFLOW_TRACKING_URI, or of mlflow.db.

The stages of MLflow (`transition_model_version_stage`) are deprecated since 2.9 in favour of aliases and tags, for they
were four fixed words, whatever environments there are. Nothing here reads or writes them. Instead

* each environment is an alias, the one that is production as `production`: the version of the newest release there,
  so that `models:/NAME@production` is a model that runs. Apps of one environment may run different versions; the alias
  then shows the last decision, a rollback included, and never a canary. It is taken away when the environment runs
  nothing of this model, or when the newest release is not in the registry: rather none than a wrong one.
* the tag `environment.ENVIRONMENT` names every app that runs this version there, canaries included.
* the tag `stage` has the classic word. Production: runs in one that is production. Staging: runs in another one than
  the first. Archived: ran once, and runs nowhere now. None: all else, what runs in the first environment included.

A version is known by its tags `version` and `digest`, with which every training registers it. If it was registered
twice, both get its tags, and the alias goes to the one whose run was released. Other versions and aliases of the
registry are left alone, and what is right already is not written again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from contract import command
from contract.errors import Refused
from lifecycle import server

if TYPE_CHECKING:
    from mlflow import MlflowClient

PRODUCTION, STAGING, ARCHIVED, NONE = "Production", "Staging", "Archived", "None"
STAGE, PLACE = "stage", "environment."


@dataclass(frozen=True)
class Release:
    environment: str
    app: str
    canary: str | None
    version: str
    digest: str
    mlflow_run: str


@dataclass(frozen=True)
class Wanted:
    """What Git has of one registered model; see the top of this file."""

    environments: tuple[str, ...]
    production: tuple[str, ...]
    releases: tuple[Release, ...]
    ran: frozenset[tuple[str, str]]

    def alias(self, environment: str) -> str:
        """Where several environments are production, each has its own name."""
        return "production" if self.production == (environment,) else environment


@dataclass(frozen=True)
class Registered:
    """A version of the registry. `number` is MLflow's own, 1 for the first."""

    number: int
    run: str | None
    tags: Mapping[str, str]

    @property
    def known_as(self) -> tuple[str | None, str | None]:
        return self.tags.get("version"), self.tags.get("digest")


@dataclass(frozen=True)
class Change:
    """A tag or an alias that gets another value; None is one that is not there. The value of an alias is a number."""

    model: str
    number: int
    version: str
    kind: str
    """`tag` or `alias`."""
    name: str
    before: str | None
    after: str | None


def plan(
    model: str, wanted: Wanted, versions: Sequence[Registered], aliases: Mapping[str, int]
) -> tuple[list[Change], list[Release]]:
    """What has to change in the registry, and the releases that it does not know."""
    # What is called otherwise now has no alias of its own name any more.
    named: dict[str, Release | None] = dict.fromkeys(wanted.environments)
    named |= {wanted.alias(environment): _newest(wanted, environment) for environment in wanted.environments}
    pointed = {name: _registered(release, versions) if release else None for name, release in named.items()}
    changes: list[Change] = []

    def change(number: int, kind: str, name: str, before: str | None, after: str | None) -> None:
        version = next((v.known_as[0] for v in versions if v.number == number), None)
        if before != after:
            changes.append(Change(model, number, version or "-", kind, name, before, after))

    for found in versions:
        if None in found.known_as:
            continue
        had = any(aliases.get(name) == found.number for name in named)
        tags = _tags(wanted, found, had)
        stale = [name for name in found.tags if name.startswith(PLACE)]
        for name in sorted({*tags, *stale}):
            change(found.number, "tag", name, found.tags.get(name), tags.get(name))
    for name, target in pointed.items():
        before, after = aliases.get(name), target.number if target else None
        if number := after or before:
            change(number, "alias", name, _text(before), _text(after))
    return changes, [release for release in wanted.releases if _registered(release, versions) is None]


def _newest(wanted: Wanted, environment: str) -> Release | None:
    return next((r for r in wanted.releases if r.environment == environment and r.canary is None), None)


def _registered(release: Release, versions: Iterable[Registered]) -> Registered | None:
    same = [found for found in versions if found.known_as == (release.version, release.digest)]
    return max(same, key=lambda found: (found.run == release.mlflow_run, found.number), default=None)


def _tags(wanted: Wanted, found: Registered, had_alias: bool) -> dict[str, str]:
    """The tags of this module that a registered version should have."""
    running = [r for r in wanted.releases if (r.version, r.digest) == found.known_as]
    places = {
        environment: sorted(_who(r) for r in running if r.environment == environment)
        for environment in wanted.environments
    }
    tags = {f"{PLACE}{environment}": ",".join(apps) for environment, apps in places.items() if apps}
    before = had_alias or found.known_as in wanted.ran or found.tags.get(STAGE) in (PRODUCTION, STAGING, ARCHIVED)
    if any(places[environment] for environment in wanted.production):
        return tags | {STAGE: PRODUCTION}
    if any(places[environment] for environment in wanted.environments[1:]):
        return tags | {STAGE: STAGING}
    return tags | {STAGE: ARCHIVED if before and not tags else NONE}


def _who(release: Release) -> str:
    return f"{release.app} (canary {release.canary})" if release.canary else release.app


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


# MLflow


def read(client: MlflowClient, model: str) -> tuple[list[Registered], dict[str, int]]:
    """The versions of a registered model, oldest first, and its aliases; nothing if there is no such model."""
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(model).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return [], {}
        raise
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name='{model}'", page_token=token)
        found += [Registered(int(item.version), item.run_id, dict(item.tags)) for item in page]
        if not (token := page.token):
            return sorted(found, key=lambda item: item.number), {name: int(of) for name, of in aliases.items()}


def write(client: MlflowClient, change: Change) -> None:
    number = str(change.number)
    if change.kind == "tag" and change.after is not None:
        client.set_model_version_tag(change.model, number, change.name, change.after)
    elif change.kind == "tag":
        client.delete_model_version_tag(change.model, number, change.name)
    elif change.after is not None:
        client.set_registered_model_alias(change.model, change.name, change.after)
    else:
        client.delete_registered_model_alias(change.model, change.name)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="print what would change, and change nothing")
    args = parser.parse_args(argv)
    out = sys.stdout

    def work() -> None:
        wanted = _wanted(sys.stdin.read())
        with server.quiet():
            _sync(wanted, args.dry_run, out)

    # The caller prints what an interruption left.
    return command.run(work, "")


def _wanted(text: str) -> dict[str, Wanted]:
    try:
        return {
            name: Wanted(
                tuple(said["environments"]),
                tuple(said["production"]),
                tuple(Release(**release) for release in said["releases"]),
                frozenset((version, digest) for version, digest in said["ran"]),
            )
            for name, said in json.loads(text).items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Refused(
            f"stdin: not what `python scripts/sync_registry.py` sends: {type(error).__name__}: {error}"
        ) from None


def _sync(wanted: Mapping[str, Wanted], dry_run: bool, out: TextIO) -> None:
    uri = server.uri()
    place = server.shown(uri)
    made, changes, unknown = 0, list[Change](), list[dict[str, Any]]()
    try:
        _require_file(uri)
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        for model, said in wanted.items():
            needed, strangers = plan(model, said, *read(client, model))
            changes += needed
            unknown += [{"model": model} | asdict(release) for release in strangers]
        told = {"registry": place, "changes": [asdict(change) for change in changes], "unknown": unknown}
        print(json.dumps(told), file=out, flush=True)
        for change in [] if dry_run else changes:
            write(client, change)
            made += 1
    except Refused:
        raise
    except ModuleNotFoundError as error:  # of MLflow itself, or of a database driver that it asks for
        raise Refused(
            f"{error.name}: not installed in {sys.prefix}, and the registry at {place} needs it;"
            " `python scripts/setup.py serve` installs MLflow"
        ) from None
    except Exception as error:  # MLflow lets through what its database driver or HTTP client raises
        said_first = server.shown(str(error)).split("\n")[0] or type(error).__name__
        done = f"; {made} of {len(changes)} changes were made, the next run makes the rest" if made else ""
        raise Refused(f"MLflow at {place} (MLFLOW_TRACKING_URI): {said_first}{done}") from None
    print(json.dumps({"made": made}), file=out, flush=True)


def _require_file(uri: str) -> None:
    """Raises Refused when a database is a file that is not there: MLflow would make it, empty."""
    path = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    if uri.startswith("sqlite:///") and not path.is_file():
        raise Refused(f"{path}: no such MLflow database; train a model, or name the server with MLFLOW_TRACKING_URI")


if __name__ == "__main__":
    raise SystemExit(main())
