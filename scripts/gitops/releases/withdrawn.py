"""The record of withdrawn versions: what is bad everywhere. It is only ever added to.

It is a ConfigMap, which the admission policy beside it reads: what is refused in Git and in the cluster is one list.
"""

from __future__ import annotations

import re
from textwrap import indent

import yaml

from gitops.manifests import yamledit
from gitops.manifests.objects import at, mapping
from gitops.repo.layout import WITHDRAWN

from contract.errors import Refused
from contract.uri import MODEL, VERSION, parse_flavour

NAME, NAMESPACE = "model-withdrawn", "argocd"
# MODEL.VERSION, which is what a key of a ConfigMap may be.
_KEY = re.compile(rf"{MODEL}\.{VERSION}")


def key(uri: str) -> str:
    """By what the record has the version whose flavour has this URI; empty where it is no version's."""
    try:
        version = parse_flavour(uri)[0]
    except Refused:
        return ""
    return f"{version.model}.{version.version}"


def read(text: bytes | None) -> dict[str, str]:
    """The entries, by `key`; none where there is no record. Raises Refused for a file that is no such record."""
    if text is None:
        return {}
    data = yamledit.load(text, WITHDRAWN)
    head = (at(data, "apiVersion"), at(data, "kind"), at(data, "metadata"))
    if head != ("v1", "ConfigMap", {"name": NAME, "namespace": NAMESPACE}) or set(data) - {
        "apiVersion", "kind", "metadata", "data",
    }:  # fmt: skip
        raise Refused(f"{WITHDRAWN}: not the ConfigMap {NAME} of {NAMESPACE} with `data` alone; put back what it was")
    entries = mapping(data.get("data"))
    for name, entry in entries.items():
        if not _KEY.fullmatch(str(name)) or not isinstance(entry, str) or not entry:
            why = "not MODEL.VERSION and a reason; only withdraw_version.py writes it"
            raise Refused(f"{WITHDRAWN}: data.{name}: {entry!r}: {why}")
    return {str(name): str(entry) for name, entry in entries.items()}


def add(text: bytes, name: str, entry: str) -> bytes:
    """The record with one entry more; what stands in it stays byte by byte. Raises Refused for what is no version, and
    where it cannot be added at the end."""
    if not _KEY.fullmatch(name):
        raise Refused(f"{name}: not MODEL.VERSION, as YYYY-MM-DD-DIGEST12; list_versions.py prints those there are")
    before = read(text)
    start = text if text.endswith(b"\n") else text + b"\n"
    if not before:
        start += b"data:\n"
    line = yaml.safe_dump({name: entry}, allow_unicode=True, width=float("inf"))
    added = start + indent(line, "  ").encode()
    try:
        done = read(added) == before | {name: entry}
    except Refused:
        done = False
    if not done:
        raise Refused(f"{WITHDRAWN}: data: no entry can be added at its end; let `data` be the last of its fields")
    return added
