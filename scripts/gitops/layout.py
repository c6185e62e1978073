"""Where things are in the repository, and the owner's policy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from gitops import kustomize, yamledit
from gitops.cli import Refused

NAMESPACE_PREFIX = "ml-"
RELEASE_FILE = "release.yaml"
POLICY_FILE = "overlays/promotion.yaml"
DRIFT_REPORTS = "model-src/reports/drift"
VERDICT_FILE = "verdict.json"
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Signing:
    """Whose signature a version needs: that of a key, or that of an identity which an OpenID issuer vouches for."""

    public_key: str = ""
    """Its path in the repository."""
    identity: str = ""
    issuer: str = ""


@dataclass(frozen=True)
class Policy:
    """`overlays/promotion.yaml`: the owner's values that checks need, and the order of environments."""

    model_bucket: str
    image_registries: tuple[str, ...]
    environments: tuple[str, ...]
    signing: Signing | None = None

    def before(self, environment: str) -> str | None:
        """The environment that a release passes through before this one; None for the first."""
        position = self.environments.index(environment)
        return self.environments[position - 1] if position else None


def namespace(environment: str) -> str:
    return f"{NAMESPACE_PREFIX}{environment}"


def overlay(app: str, environment: str) -> str:
    return f"overlays/{environment}/{app}"


def release_paths(app: str, environment: str) -> tuple[str, str]:
    """Where an app's release can be: in a file of its own or, if there is none, in what the overlay's kustomization
    says of images."""
    folder = overlay(app, environment)
    return f"{folder}/{RELEASE_FILE}", f"{folder}/{kustomize.FILE}"


def read_policy(root: Path) -> Policy:
    """Raises Refused with one line per fault of the file."""
    return parse_policy((root / POLICY_FILE).read_bytes() if (root / POLICY_FILE).is_file() else None)


def parse_policy(text: bytes | None) -> Policy:
    if text is None:
        raise Refused(f"{POLICY_FILE}: missing; it names the model bucket, the image registries and the environments")
    data = yamledit.load(text, POLICY_FILE)
    if faults := schema_faults(data, "promotion.schema.json"):
        raise Refused(*[f"{POLICY_FILE}: {fault}" for fault in faults])
    names = tuple(environment["name"] for environment in data["environments"])
    if len(set(names)) != len(names):
        raise Refused(f"{POLICY_FILE}: environments: {', '.join(names)}: a name stands twice; list each once")
    if (signing := data.get("signing")) and {"public_key", "identity"} <= signing.keys():
        raise Refused(f"{POLICY_FILE}: signing: a public_key and an identity; a version is signed by one of them")
    asked = Signing(*(signing.get(field, "") for field in ("public_key", "identity", "issuer"))) if signing else None
    return Policy(data["model_bucket"], tuple(data["image_registries"]), names, asked)


def schema_faults(data: Any, schema: str) -> list[str]:
    """`field: fault` for everything in `data` that breaks a JSON Schema of this package."""
    return [
        f"{'.'.join(map(str, fault.absolute_path)) or 'the whole file'}: {fault.message}"
        for fault in sorted(_validator(schema).iter_errors(data), key=lambda fault: list(map(str, fault.absolute_path)))
    ]


@cache
def _validator(schema: str) -> Any:
    # To JSON Schema 1.0 is an integer; to Python, and to other readers of these files, it is not.
    types = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    strict: Any = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
        jsonschema.Draft202012Validator, type_checker=types
    )
    return strict(json.loads((_HERE / schema).read_text()))


def apps(root: Path) -> list[str]:
    """The apps of `apps/`, sorted."""
    return sorted(folder.parent.name for folder in (root / "apps").glob("*/kustomization.yaml"))


def models(root: Path) -> list[str]:
    """The models whose code is in `model-src/models/`, sorted."""
    return sorted(file.parent.name for file in (root / "model-src/models").glob("*/problem.yaml"))


def overlays(root: Path, policy: Policy) -> list[str]:
    """Every overlay that renders something, environment by environment."""
    return [
        f"overlays/{environment}/{folder.parent.name}"
        for environment in policy.environments
        for folder in sorted((root / "overlays" / environment).glob("*/kustomization.yaml"))
        if folder.parent.name != "shared"
    ]


def require_app(root: Path, policy: Policy, app: str, environment: str) -> None:
    """Refuses names that are not in the repository, and says which are."""
    if environment not in policy.environments:
        known = ", ".join(policy.environments)
        raise Refused(f"{POLICY_FILE}: environments: no {environment!r}; the environments are {known}")
    if app not in apps(root):
        raise Refused(f"apps/{app}: no such app; the apps are {', '.join(apps(root))}")
    paths = release_paths(app, environment)
    if not any((root / path).is_file() for path in paths):
        raise Refused(
            f"{paths[0]}: missing; {app} has no overlay in {environment}, CONTRIBUTING.md tells how to add one"
        )
