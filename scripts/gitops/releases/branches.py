"""The names of branches for pull requests: made of what they change, so that the same change is the same branch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from gitops.releases import image as images
from gitops.releases.release import UNRELEASED, Release


def of_releases(action: str, releases: Sequence[Release]) -> str:
    """`action/ENVIRONMENT/APP[-CANARY]-VERSION[-IMAGE]` for one release, and a name of the same length for any number
    of them."""
    environments = {each.environment for each in releases}
    if len(releases) == 1:
        [each] = releases
        name = "-".join(filter(None, [each.app, each.canary, each.version, _short(each.image)]))
    else:
        lines = "\n".join(line for each in releases for line in each.trailers())
        name = f"{len(releases)}-apps-{_hash(lines)}"
    return "/".join([action, *(environments if len(environments) == 1 else ["several"]), name])


def of_holds(environment: str, apps: Sequence[str]) -> str:
    """`release-hold/ENVIRONMENT/APP` for one app, and a name of the same length for any number of them."""
    name = apps[0] if len(apps) == 1 else f"{len(apps)}-apps-{_hash(' '.join(apps))}"
    return f"release-hold/{environment}/{name}"


def _short(image: str | None) -> str | None:
    """An image as 12 characters that may stand in the name of a branch, as not every tag may."""
    if image is None or image == UNRELEASED:
        return None
    _, found, digest = image.partition("@sha256:")
    if archive := images.archive(image):
        return archive[1][:12]
    return digest[:12] if found else _hash(image)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
