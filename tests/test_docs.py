"""The commands in docs/ that are ours exist, and take the options that stand there."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT

from gitops.manifests.cloudformation import FOLDER

PAGES = sorted((ROOT / "docs").glob("*.md"))
COMMAND = re.compile(r"python scripts/(?P<name>\w+)\.py(?P<words>[^|>`\n]*)")
CALLS = [
    (page.name, match["name"], match["words"].strip())
    for page in PAGES
    for match in COMMAND.finditer(page.read_text())
    if "..." not in match["words"]
]


class Parsed(Exception):
    """The options were taken, and nothing was run."""


@pytest.mark.parametrize(
    ("page", "command", "words"), CALLS, ids=[f"{page}: {name} {words}" for page, name, words in CALLS]
)
def test_a_command_takes_the_options_that_a_page_has(
    page: str, command: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = argparse.ArgumentParser.parse_args

    def parse(parser: argparse.ArgumentParser, *given: object, **more: object) -> None:
        real(parser, *given, **more)  # type: ignore[call-overload]
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    with pytest.raises((Parsed, SystemExit)) as ended:
        importlib.import_module(command).main(shlex.split(words))

    assert ended.type is Parsed or ended.value.args == (0,)


def test_what_a_page_names_of_the_repository_is_there() -> None:
    for page in PAGES:
        named = re.findall(r"`((?:tests|infra|scripts|docs|model-src|\.github)/[\w./-]+)`", page.read_text())
        assert [path for path in named if not (ROOT / path).exists()] == [], page


def test_the_table_of_aws_has_every_template() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs/aws.md").read_text(), re.MULTILINE)

    assert sorted(rows) == sorted(file.stem for file in Path(ROOT / FOLDER).glob("*.yaml"))
