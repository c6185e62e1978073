"""The YAML editor: what it changes, what it leaves, and what it refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as some
import pytest
import yaml
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from gitops.manifests import yamledit
from gitops.manifests.yamledit import Named
from gitops.manifests.yamledit import Path as FieldPath
from gitops.programs import tools

from contract.errors import Refused

# The same examples in every run, so that a failure is everybody's.
hypothesis.settings.register_profile("project", derandomize=True, deadline=None, database=None, max_examples=300)
hypothesis.settings.load_profile("project")

K: FieldPath = ("k",)
ENV: FieldPath = ("spec", "containers", Named("api"), "env", Named("URI"), "value")


def edit(text: str | bytes, changes: Mapping[FieldPath, str]) -> bytes:
    return yamledit.edit(text if isinstance(text, bytes) else text.encode(), changes, "release.yaml")


def refusal(text: str | bytes, path: FieldPath = K, value: str = "new") -> str:
    with pytest.raises(Refused) as caught:
        edit(text, {path: value})
    return str(caught.value)


def as_1_1(text: bytes) -> Any:
    return yaml.safe_load(text)


def as_1_2(text: bytes) -> Any:
    return YAML(typ="safe", pure=True).load(text.decode("utf-8-sig"))


# Only the value changes. `@` is where it stands.

LONG = "long " * 60
PLACES: dict[str, tuple[str, FieldPath]] = {
    "the only field": ("k: @\n", K),
    "a comment at the line's end": ("# top\na: 1   # one\nk: @   # why: 'this'\nb: 2 # two\n", K),
    "a comment glued to a tab": ("k: @\t# why\nb: 2\n", K),
    "blanks after the value": ("k: @   \nb: 2\n", K),
    "a tab after the value": ("k: @\t\nb: 2\t\n", K),
    "blanks before the value": ("k:    @\n", K),
    "a leading ---": ("---\nk: @\n", K),
    "--- and ...": ("%YAML 1.2\n---\nk: @\n...\n", K),
    "CRLF": ("---\r\nk: @ # why\r\nb: 2\r\n", K),
    "a byte order mark": ("\ufeffk: @\n", K),
    "a byte order mark, --- and CRLF": ("\ufeff---\r\nk: @\r\n...\r\n", K),
    "no newline at the end of the file": ("b: 2\nk: @", K),
    "blank lines": ("\n\nk: @\n\n\n", K),
    "a flow mapping": ("{a: 1,  k: @ , b: [1,2]}\n", K),
    "a flow mapping on several lines": ("{\n  a: 1, # one\n  k: @, # two\n}\n", K),
    "JSON": ('{"a":1,"k":"@","b":[1,2]}\n', K),
    "single quotes": ("a: 'it''s'\nk: '@' # why\n", K),
    "double quotes": ('a: "\\u00e9\\n"\nk: "@" # why\n', K),
    "a quoted key": ("\"k\": @\n'b': 2\n", K),
    "a question mark before the key": ("? k\n: @\n", K),
    "unicode around": ("é😀: '😀 ü' # ☃\nk: @ # ☃ 😀\nb: 😀\n", K),
    "folded and literal scalars elsewhere": ("a: >-\n  x\n\n  y  \nk: @\nb: |+\n  z\n\n", K),
    "long lines": (f"a: {LONG}\nk: @ # {LONG}\nb: '{LONG}'\n", K),
    "an anchor and an alias elsewhere": ("a: &x {y: 1}\nb: *x\nc:\n  <<: *x\nk: @\n", K),
    "tags elsewhere": ("a: !!str 1\nk: @\nb: !mine 2\n", K),
    "indents of two": (
        "spec:\n  containers:\n    - name: api\n      env:\n        - name: URI\n          value: @\n",
        ENV,
    ),
    "flush sequences": ("spec:\n  containers:\n  - env:\n    - value: @\n      name: URI\n    name: api\n", ENV),
    "indents of four": (
        "spec:\n    containers:\n    -   name: other\n    -   name: api\n        env:\n        -   name: A\n"
        "            value: old\n        -   name: URI\n            value: @\n",
        ENV,
    ),
    "flow style in a block": ("spec:\n  containers:\n  - {name: api, env: [{ name: URI , value: @ }]}\n", ENV),
}


@pytest.mark.parametrize(("text", "path"), PLACES.values(), ids=PLACES)
def test_an_edit_changes_the_value_and_no_other_byte_and_the_edit_back_restores_the_file(
    text: str, path: FieldPath
) -> None:
    before, after = (text.replace("@", value).encode() for value in ("old", "s3://bucket/models/lily/"))

    assert edit(before, {path: "s3://bucket/models/lily/"}) == after
    assert edit(after, {path: "old"}) == before
    assert yamledit.get(before, path, "release.yaml") == "old"


def test_several_values_change_at_once() -> None:
    before = b"metadata:\n  a: 1 # one\n  b: 'two'\nspec: {c: three, d: four}\n"

    after = edit(before, {("spec", "d"): "4", ("metadata", "a"): "eins", ("spec", "c"): "drei", ("metadata", "b"): "2"})

    assert after == b"metadata:\n  a: eins # one\n  b: '2'\nspec: {c: drei, d: \"4\"}\n"


def test_a_value_that_is_there_already_keeps_its_spelling() -> None:
    text = b"k: \"\\x61\"\nb: 'b'\nc: plain\n"

    assert edit(text, {K: "a", ("b",): "b", ("c",): "plain"}) == text


@pytest.mark.parametrize("value", ["true", "null", "~", "yes", "1e3", "1_000", "=", "2026-02-01", "0x1f", "12:30:45"])
def test_a_plain_value_that_is_no_string_becomes_one(value: str) -> None:
    after = edit(f"k: {value} # why\n{{}}: 1\n", {K: value})

    assert after == f'k: "{value}" # why\n{{}}: 1\n'.encode()


# What is written is read back as that string, by every parser that reads the file.

AMBIGUOUS = [
    "", " ", " a", "a ", "1e3", "1E3", "1e+3", "123e45678901", "0x1f", "0X1F", "0_x1f", "0o17", "0O17", "0b11", "017",
    "08", "1_000", "1_0e1_0", "1", "1.", "1.5", "-1", "+1", ".5", "12:30:45", "1:30", "190:20:30.15", ".inf", "-.INF",
    ".nan", "yes", "Yes", "no", "on", "OFF", "y", "N", "true", "False", "null", "Null", "~", "2026-02-01", "2026-2-1",
    "2026-02-01T10:20:30Z", "2026-02-01t1:2:3Z", "2026-02-01 10:20:30", "=", "<<", "#", "a #b", "#a", ": ", "a: b",
    "a:", ":", "[", "]", "[a]", "{", "}", "{a: b}", ",", "a, b", "*", "*a", "&", "&a", "!", "!a", "%", "%YAML", "@",
    "`", "|", ">", "-", "- a", "?", "? a", "---", "...", "'", '"', "it's", '"a"', "\\", "\\n", "ü", "😀", "a b",
]  # fmt: skip
PLAIN = [
    "unreleased", "2026-02-01-3f2a9c1b7d10", "2026-02-01-123456789012", f"sha256:{'1' * 64}", "c0de" * 10,
    "s3://mlops-prod/models/lily/2026-02-01-3f2a9c1b7d10/sklearn/", "localhost:5000/a/lily-api:1.0",
    f"111122223333.dkr.ecr.eu-west-1.amazonaws.com/lily-api@sha256:{'1' * 64}", "inf", "nan", "1.2.3", "nope", "e3",
]  # fmt: skip
STYLES = [
    "k: old # why\nb: c\n",
    "k: 'old' # why\nb: c\n",
    'k: "old" # why\nb: c\n',
    "{k: old, b: c}",
    '{"k":"old","b":"c"}',
]


@pytest.mark.parametrize("value", AMBIGUOUS + PLAIN)
def test_a_value_reads_back_as_the_same_string_in_yaml_1_1_and_1_2(value: str) -> None:
    after = [edit(style, {K: value}) for style in STYLES]

    assert [as_1_1(text) for text in after] == [{"k": value, "b": "c"}] * len(STYLES)
    assert [as_1_2(text) for text in after] == [{"k": value, "b": "c"}] * len(STYLES)
    assert [yamledit.get(text, K, "release.yaml") for text in after] == [value] * len(STYLES)


def test_the_parser_of_kubernetes_reads_every_value_as_the_same_string(tmp_path: Path) -> None:
    values = {f"v{number}": value for number, value in enumerate(AMBIGUOUS + PLAIN)}
    lines = [f"  {name}: old\n" for name in values]
    text = "".join(["apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: values\ndata:\n", *lines])
    wanted = {name: {"type": "string", "enum": [value]} for name, value in values.items()}
    (tmp_path / "schema.json").write_text(json.dumps({"properties": {"data": {"properties": wanted}}}))
    (tmp_path / "values.yaml").write_bytes(edit(text, {("data", name): value for name, value in values.items()}))

    done = subprocess.run(
        [
            tools.KUBECONFORM.require(),
            "-verbose",
            "-schema-location",
            tmp_path / "schema.json",
            tmp_path / "values.yaml",
        ],
        capture_output=True,
        text=True,
    )

    assert done.stdout == f"{tmp_path}/values.yaml - ConfigMap values is valid\n"


@pytest.mark.parametrize("value", PLAIN)
def test_what_releases_hold_stays_without_quotes(value: str) -> None:
    assert edit("k: old\n", {K: value}) == f"k: {value}\n".encode()


@pytest.mark.parametrize("value", AMBIGUOUS)
def test_what_could_be_something_else_is_quoted(value: str) -> None:
    assert edit("k: old\n", {K: value}) == f"k: {json.dumps(value, ensure_ascii=False)}\n".encode()


def test_quotes_that_somebody_chose_stay_and_those_that_a_value_needed_go_with_it() -> None:
    assert edit("k: 'old'\n", {K: "it's"}) == b"k: 'it''s'\n"
    assert edit('k: "old"\n', {K: "new"}) == b'k: "new"\n'
    assert edit('k: "1e3"\n', {K: "new"}) == b"k: new\n"


# The same, for what nobody thought of

words = some.text(some.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
printable = some.one_of(
    words,
    some.sampled_from(AMBIGUOUS),
    some.text(max_size=12).filter(str.isprintable),
    some.from_regex(r"\A[0-9_.:exo+-]{1,9}\Z"),
)
plain = some.one_of(some.sampled_from(PLAIN), some.from_regex(r"\A[g-m][a-z0-9./:@-]{0,9}[g-m]\Z"))


@some.composite
def fields(draw: some.DrawFn) -> tuple[str, str, str, str]:
    """A file in four parts, with the bytes of the value of `k` as the third and that value as the last."""
    style = draw(some.sampled_from(["plain", "single", "double", "needed"]))
    old = draw(plain if style in ("plain", "double") else printable)
    if style == "needed":
        hypothesis.assume(edit("k: x\n", {K: old}).startswith(b'k: "'))
    spelled = {"plain": old, "single": "'" + old.replace("'", "''") + "'"}.get(
        style, json.dumps(old, ensure_ascii=False)
    )
    newline = draw(some.sampled_from(["\n", "\r\n"]))
    comment = some.builds("# {}".format, words)
    other = some.sampled_from(
        [
            "a: b",
            "a:  'b'  # c",
            "a: [1,  2]",
            "a: {x: y}",
            "a:\n- 1\n-   2",
            "a: >-\n    x\n\n    y",
            "a: |\n  k: no",
            "a: 😀",
        ]
    )
    before = [draw(some.lists(comment, max_size=2)), [f"a{draw(other)[1:]}"] if draw(some.booleans()) else []]
    start = draw(some.sampled_from(["", "\ufeff", "---\n", "\ufeff---\n", "%YAML 1.1\n---\n"]))
    lines = [line for group in before for line in group]
    head = start + "".join(f"{line}\n" for line in lines) + draw(some.sampled_from(["k: ", "k:   ", "'k': ", "k:\n  "]))
    tail = draw(some.sampled_from(["", "  ", " # c", "\n", " # é😀\n", "  \nz: 1\n", "\n\n# end", "\n...\n"]))
    return head.replace("\n", newline), tail.replace("\n", newline), spelled, old


@hypothesis.given(fields(), printable)
def test_any_edit_keeps_all_bytes_around_the_value_and_reads_back(file: tuple[str, str, str, str], new: str) -> None:
    head, tail, spelled, old = file
    before = f"{head}{spelled}{tail}".encode()

    after = edit(before, {K: new})

    assert after.startswith(head.encode())
    assert after.endswith(tail.encode())
    assert as_1_1(after)["k"] == as_1_2(after)["k"] == new
    assert {**as_1_1(after), "k": old} == as_1_1(before)


@hypothesis.given(fields(), printable)
def test_any_edit_back_gives_the_same_bytes(file: tuple[str, str, str, str], new: str) -> None:
    """But for double quotes that nobody needs, replaced by quotes that a value needs: those cannot be told apart."""
    head, tail, spelled, old = file
    hypothesis.assume(
        not (spelled == f'"{old}"' and edit("k: x\n", {K: old}) == f"k: {old}\n".encode()) or new in PLAIN
    )
    before = f"{head}{spelled}{tail}".encode()

    assert edit(edit(before, {K: new}), {K: old}) == before


@hypothesis.given(
    some.one_of(
        some.binary(max_size=30),
        some.text("k:ab -\n\t\r#'\"[]{},&*!|>%@?.~1\ufeff\x00\u2028", max_size=30).map(str.encode),
    ),
    printable,
)
def test_any_bytes_are_edited_or_refused(text: bytes, value: str) -> None:
    try:
        after = edit(text, {K: value})
    except Refused as refused:
        assert [line.startswith("release.yaml: ") for line in refused.lines] == [True]
        return

    assert yamledit.get(after, K, "release.yaml") == value


EMPTY = {
    "k:": "k: new",
    "k: \nb: 1\n": "k: new \nb: 1\n",
    "k: # why\n": "k: new # why\n",
    "'k':\r\nb: 1\r\n": "'k': new\r\nb: 1\r\n",
    "{a: b, k: , c: d}": "{a: b, k: new , c: d}",
    '{"k":}': '{"k": new}',
    "k:\n# why: this\nb: 1\n": "k: new\n# why: this\nb: 1\n",
    "b: 1\nk:\n---\nc: 1\n": "b: 1\nk: new\n---\nc: 1\n",
}


@pytest.mark.parametrize(("before", "after"), EMPTY.items())
def test_a_value_is_written_where_there_was_none(before: str, after: str) -> None:
    assert edit(before, {K: "new"}) == after.encode()


def test_an_empty_value_of_an_inner_mapping_is_written_behind_its_own_colon() -> None:
    text = "a:\n  - name: x\n    value: # why: so\n  - name: y\n    value:\nb:\n  k:\n  c: 1\n"

    after = edit(text, {("a", Named("x"), "value"): "1", ("a", Named("y"), "value"): "2", ("b", "k"): "new"})

    assert after.decode() == (
        'a:\n  - name: x\n    value: "1" # why: so\n  - name: y\n    value: "2"\nb:\n  k: new\n  c: 1\n'
    )


def test_of_several_documents_the_one_with_all_the_fields_is_written() -> None:
    text = "# one\na: 1\n---\nk: old\n---\nk: old # two\na: 1\n...\n"

    assert edit(text, {K: "new", ("a",): "b"}) == text.replace("old # two\na: 1", "new # two\na: b").encode()
    assert yamledit.get(b"a: 1\n---\nk: b\n", K, "f") == "b"


def test_an_anchor_that_is_defined_again_is_no_matter_of_anybody(recwarn: pytest.WarningsRecorder) -> None:
    text = b"a: &x 1\nb: &x 2\nc: *x\nk: old\n"

    assert edit(text, {K: "new"}) == text.replace(b"old", b"new")
    assert yamledit.load(text, "f") == {"a": 1, "b": 2, "c": 2, "k": "old"}
    assert not recwarn.list


def test_an_equals_sign_alone_is_a_text() -> None:
    assert yamledit.load(b"k: =\na: [=, '=']\n", "f") == {"k": "=", "a": ["=", "="]}


# Refusals

FIELDS = {
    "missing": ("a: b\n", "k: missing; add the field, only its value is written by commands"),
    "empty and without a colon": ("{k}\n", "k: empty; write a value there, commands only replace one"),
    "empty, with the colon elsewhere": ("? k\n: \n", "k: empty; write a value there, commands only replace one"),
    "empty, with an anchor": ("k: &x\n", "k: shares its value by the anchor &x; write the value out"),
    "a list": ("k: [a]\n", "k: a list, not a single value"),
    "a mapping": ("k:\n  a: b\n", "k: a mapping, not a single value"),
    "an anchor": ("k: &x old\n", "k: shares its value by the anchor &x; write the value out"),
    "an alias": ("a: &x old\nk: *x\n", "k: shares its value by the anchor &x; write the value out"),
    "a tag": ("k: !!str old\n", "k: has the tag !!str; remove it"),
    "the tag !": ("k: ! old\n", "k: has the tag !; remove it"),
    "a literal scalar": ("k: |\n  old\n", "k: a block scalar; write the value on one line"),
    "a folded scalar": ("k: >-\n  old\n", "k: a block scalar; write the value on one line"),
    "plain on two lines": ("k: old\n  old\n", "k: several lines; write the value on one line"),
    "quoted on two lines": ('k: "old\n  old"\n', "k: several lines; write the value on one line"),
    "only by a merge": ("<<: {k: old}\n", "k: missing; add the field, only its value is written by commands"),
    "a list at the top": ("- k: old\n", "k: missing; add the field, only its value is written by commands"),
}


@pytest.mark.parametrize(("text", "message"), FIELDS.values(), ids=FIELDS)
def test_a_field_that_cannot_be_replaced_is_refused_by_name(text: str, message: str) -> None:
    assert refusal(text) == f"release.yaml: {message}"


FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "0 documents, and there is no k; write the fields into exactly one"),
    "comments alone": ("# nothing\n", "0 documents, and there is no k; write the fields into exactly one"),
    "two documents": ("k: a\n---\nk: b\n", "2 documents, and 2 of them have k; write the fields into exactly one"),
    "other documents": ("a: a\n---\nb: b\n", "2 documents, and none of them has k; write the fields into exactly one"),
    "a key twice": ("a: 1\nk: a\nb:\n- k: 1\nk: b\n", "line 5: key 'k' stands twice; remove one"),
    "a key twice, deeper": ("k: a\nb:\n- {c: 1, c: 2}\n", "line 3: key 'c' stands twice; remove one"),
    "not UTF-8": (b"# ok\nk: \xff\n", "byte 8: not UTF-8; save the file as UTF-8"),
    "not UTF-8, with a byte order mark": (b"\xef\xbb\xbfk: \xff\n", "byte 6: not UTF-8; save the file as UTF-8"),
    "UTF-16": ("k: a\n".encode("utf-16"), "byte 0: not UTF-8; save the file as UTF-8"),
    "not YAML": ("a: b\nk: c: d\n", "line 2: not YAML: mapping values are not allowed here"),
    "an open bracket": ("k: [\n", "line 2: not YAML: expected the node content, but found '<stream end>'"),
    "an unknown alias": ("k: *x\n", "line 1: not YAML: found undefined alias 'x'"),
    "a tab as indent": ("a:\n\tk: b\n", "line 2: not YAML: found character '\\t' that cannot start any token"),
    "hundreds of brackets": ("[" * 900, "nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), FILES.values(), ids=FILES)
def test_a_file_that_cannot_be_read_is_refused_by_name(text: str | bytes, message: str) -> None:
    assert refusal(text) == f"release.yaml: {message}"


def test_a_field_below_an_anchor_is_refused_as_its_change_would_be_one_elsewhere_too() -> None:
    text = "a: &x\n  k: old\nb: *x\n"

    assert refusal(text, ("b", "k")) == "release.yaml: b: shares its value by the anchor &x; write the value out"
    assert refusal(text, ("a", "k")) == "release.yaml: a: shares its value by the anchor &x; write the value out"


def test_a_name_that_stands_twice_in_a_list_is_refused() -> None:
    text = "env:\n- {name: URI, value: a}\n- {name: URI, value: b}\n"

    assert refusal(text, ("env", Named("URI"), "value")) == "release.yaml: env[URI]: stands 2 times; remove all but one"


def test_a_missing_field_is_named_with_its_whole_path() -> None:
    assert refusal("spec:\n  containers:\n  - name: other\n", ENV) == (
        "release.yaml: spec.containers[api].env[URI].value: missing;"
        " add the field, only its value is written by commands"
    )


@pytest.mark.parametrize("value", ["a\nb", "\t", "\x00", "\u2028", "\ud800", "\ufeff"])
def test_a_value_that_cannot_be_printed_is_refused(value: str) -> None:
    assert refusal("k: old\n", value=value) == f"release.yaml: k: {value!r} has a character that cannot be printed"


def test_one_refused_field_of_several_changes_nothing() -> None:
    with pytest.raises(Refused, match="b: a list, not a single value"):
        edit("k: old\nb: [c]\n", {K: "new", ("b",): "new"})


# Reading


@pytest.mark.parametrize("text", ["a: b\n", "k\n", "- k\n", "[k]\n"])
def test_a_field_that_is_not_there_is_read_as_none(text: str) -> None:
    assert yamledit.get(text.encode(), K, "release.yaml") is None


def test_a_value_is_read_as_it_stands_whatever_type_yaml_gives_it() -> None:
    assert [yamledit.get(f"k: {text}\n".encode(), K, "f") for text in ("2026-02-01", "1e3", "yes", "~")] == [
        "2026-02-01", "1e3", "yes", "~",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"k: [a]\n", "release.yaml: k: a list, not a single value"),
        (b"k: {a: b}\n", "release.yaml: k: a mapping, not a single value"),
        (b"k: a: b\n", "release.yaml: line 1: not YAML: mapping values are not allowed here"),
    ],
)
def test_what_is_no_single_value_cannot_be_read_as_one(text: bytes, message: str) -> None:
    with pytest.raises(Refused) as caught:
        yamledit.get(text, K, "release.yaml")

    assert str(caught.value) == message


def test_a_whole_file_is_loaded_as_plain_data() -> None:
    text = "\ufeffk: [1, two]\t# three\r\nb: {c: 'd'}\r\n".encode()

    assert yamledit.load(text, "release.yaml") == {"k": [1, "two"], "b": {"c": "d"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"k: 2026-13-45\n", "release.yaml: not YAML: month must be in 1..12"),
        (b"a: [b, !mine {c: d}]\n", "release.yaml: line 1: has the tag !mine; remove it"),
        (b"a: 1\nk: !Ref b\n", "release.yaml: line 2: has the tag !Ref; remove it"),
        (b"k: a\n---\nk: b\n", "release.yaml: 2 documents; it must hold exactly one"),
        (b"k: a\nk: b\n", "release.yaml: line 2: key 'k' stands twice; remove one"),
    ],
)
def test_a_file_with_a_value_that_means_nothing_is_not_loaded(text: bytes, message: str) -> None:
    with pytest.raises(Refused) as caught:
        yamledit.load(text, "release.yaml")

    assert str(caught.value) == message


_OLD = (
    "metadata:\n    annotations:\n        digest: a  # kept\n        next: b\nenv:\n    - name: DIGEST\n      value: a"
)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_new_scalar_stands_behind_its_sibling_and_no_other_byte_changes(newline: str, bom: bytes, end: str) -> None:
    def encoded(text: str) -> bytes:
        return bom + (text + end).replace("\n", newline).encode()

    annotations, env = ("metadata", "annotations"), ("env", yamledit.Named("DIGEST"), "value")
    text = yamledit.add_after(encoded(_OLD), (*annotations, "manifest"), (*annotations, "digest"), "c", "f")
    text = yamledit.add_after(text, ("env", yamledit.Named("MANIFEST"), "value"), env, "c", "f")
    wanted = _OLD.replace("# kept\n", "# kept\n        manifest: c\n") + "\n    - name: MANIFEST\n      value: c"
    assert text == encoded(wanted)


@pytest.mark.parametrize("text", [b"a: {digest: x}\n", b"a: &b\n  digest: x\nc: *b\n", b"a:\n  other: x\n"])
def test_a_new_scalar_in_any_other_style_is_refused_with_the_remedy(text: bytes) -> None:
    with pytest.raises(Refused, match=r"add the field by a pull request|write the value out"):
        yamledit.add_after(text, ("a", "manifest"), ("a", "digest"), "c", "f")


_PIECES = some.sampled_from(
    [
        "a", "b: c", "name: x", "- ", "  ", "\n", "\n  ", ": ", "1", "01", "0x1", "1e3", "1_000", "1:30", "y", "yes",
        "~", "null", "true", "=", "<<: x", "'q'", '"q"', '""', "{", "}", "[", "]", ", ", "#", " # c", "@", "%", "`",
        "key: {a: b}", "list: [a, 1]", "2026-02-01", "2026-02-01-ab", "sha256:ab", "s3://x/", "|", ">", "&a", "*a",
        "!t", "?", "---", "\t", "\\", "\u00e9", ".5", "1.", "-", "+1", "0o7", "x: y: z",
        "k: |-\n", "k: |\n  ", "|-\n    ", "\n    - op: add\n      path: /a\n", "# x |\n",
    ]
)  # fmt: skip


def scalars(node: Node) -> list[tuple[str, int, int]]:
    """(value, start, end) of all scalars below a node but block scalars, which no edit writes."""
    if isinstance(node, ScalarNode):
        block = node.style in ("|", ">")
        return [] if block else [(str(node.value), node.start_mark.index, node.end_mark.index)]
    items = [item for pair in node.value for item in pair] if isinstance(node, MappingNode) else node.value
    return [found for item in items for found in scalars(item)]


@hypothesis.settings(max_examples=1500)
@hypothesis.given(some.lists(_PIECES, max_size=12).map("".join))
def test_a_simple_text_is_read_as_the_slow_way_reads_it(text: str) -> None:
    if (simple := yamledit._simple(text)) is None:
        return
    assert simple[0] == yamledit._load(text, "f")
    [node] = yamledit._nodes(text, "f")
    assert scalars(node) == scalars(yamledit._compose(text, "f"))
    for key in simple[0] if isinstance(simple[0], dict) else ():
        if not isinstance(simple[0][key], dict | list):
            node = yamledit._find(yamledit._compose(text, "f"), (key,), "f")
            assert yamledit.get(text.encode(), (key,), "f") == (None if node is None else str(node.value))


ITEMS = [
    # (text, path, item, with it)
    ("a:\n  - x\n# of b\nb: 1\n", ("a",), "z", "a:\n  - x\n  - z\n# of b\nb: 1\n"),
    (
        "a:\n- x: 1\n  y: [2]  # so\n\n",
        ("a",),
        {"x": "n", "y": "z"},
        'a:\n- x: 1\n  y: [2]  # so\n- x: "n"\n  y: z\n\n',
    ),
    ("a:\r\n  b:\r\n    - x", ("a", "b"), "z", "a:\r\n  b:\r\n    - x\r\n    - z\r\n"),
    ("b: 1\n\n", ("a",), {"x": "p"}, "b: 1\n\na:\n  - x: p\n"),
    ("b: 1", ("a",), "p", "b: 1\na:\n  - p\n"),
]


@pytest.mark.parametrize(("text", "path", "item", "made"), ITEMS)
def test_an_item_comes_to_a_list_and_goes_again_and_every_other_byte_stays(
    text: str, path: tuple[str, ...], item: dict[str, str] | str, made: str
) -> None:
    added = yamledit.add_item(text.encode(), path, item, "f", new=True)

    assert added.decode() == made
    kept = text if text.endswith("\n") else text + ("\r\n" if "\r" in text else "\n")
    assert yamledit.remove_item(added, path, item, "f").decode() == kept


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("a: [x]\n", "x"), ("a:\n  - x\n", "y"), ("a:\n  - x\n  - x\n", "x"), ("a: x\n", "x"), ("b: 1\n", "x"),
        ("a: &a\n  - x\n  - y\nb: *a\n", "x"), ("a:\n  - - x\n", "x"), ("a: {b: 1}\n", "x"), ("- x\n", "x"),
    ],
)  # fmt: skip
def test_an_item_that_is_not_there_once_on_its_own_lines_stays(text: str, item: str) -> None:
    with pytest.raises(Refused, match=r"^f: a: "):
        yamledit.remove_item(text.encode(), ("a",), item, "f")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a: {b: 'X'}   # X\n", "a.b"),
        ('- {name: E, value: "X"}\n', "[E].value"),
        ("literals:\n  - A=X\n", "literals[0]"),
        ("patches:\n  - patch: |-\n      - op: add\n        path: /spec/host\n        value: X\n", "spec.host"),
        (
            'patch: \'[{"op": "add", "path": "/spec/env/-", "value": {"name": "E", "value": "X"}}]\'\n',
            "spec.env[E].value",
        ),
        ("one: &a [X]\ntwo: *a\n", "two[0]"),
        ("text: |\n  not yaml: [X\n", "text"),
        ("a: 1\r\n---\r\nb: X\r\n", "b"),
    ],
)
def test_every_scalar_is_rewritten_by_its_path_and_nothing_else(text: str, path: str) -> None:
    found = []

    def change(where: str, written: str) -> str:
        found.extend([where] if "X" in written else [])
        return written.replace("X", "other")

    after = yamledit.rewrite(text.encode(), change, "f.yaml").decode()

    assert found == [path]
    assert after.replace("other", "X") == text
    assert after.count("other") == 1
    assert after.partition("#")[2] == text.partition("#")[2]


@pytest.mark.parametrize(
    ("text", "wanted", "after"),
    [
        ("a: [x, y]   # c\n", ["x", "z", "y"], "a: [x, z, y]   # c\n"),
        ("a: [x, y]\n", ["y"], "a: [y]\n"),
        ("a:\n  - x\n  # of y\n  - y\nb: 1\n", ["x", "z"], "a:\n  - x\n  - z\nb: 1\n"),
        ("a:\n- x\n---\na: [x]\n---\nb: 1\n", ["w", "x"], "a:\n- w\n- x\n---\na: [w, x]\n---\nb: 1\n"),
        ("a:\r\n  - x\r\n", ["x", "on"], 'a:\r\n  - x\r\n  - "on"\r\n'),
        ("a:\n  - x", ["x", "z"], "a:\n  - x\n  - z\n"),
        ("a:\n  - x   # c\n  # of y\n  - y\nb: 1\n", ["w", "z"], "a:\n  - w\n  - z\nb: 1\n"),
        ("a: [x, y]\n", ["z"], "a: [z]\n"),
    ],
)
def test_a_list_is_made_another_and_the_rest_stays(text: str, wanted: list[str], after: str) -> None:
    assert yamledit.set_list(text.encode(), ("a",), wanted, "f.yaml").decode() == after


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("a:\n  - x: 1\n  # of y\n  - y: |-\n      - op\n# of b\nb: 1\n", "a:\n  - x: 1\n# of b\nb: 1\n"),
        ("c: 1\n\na:\n  # of y\n  - y: |-\n      - op\n# of b\nb: 1\n", "c: 1\n\n# of b\nb: 1\n"),
        ("c: 1\na:\n- y: 1", "c: 1\n"),
    ],
)
def test_an_item_goes_with_its_comments_and_a_list_with_its_last_item(text: str, after: str) -> None:
    last = text.count("- x")
    assert yamledit.remove_entry(text.encode(), ("a",), last, "f.yaml").decode() == after


@pytest.mark.parametrize("text", ["a: x\n", "b: [x]\n", "a: [{b: 1}]\n"])
def test_what_is_no_list_of_values_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"f\.yaml: a: no list of single values; write y by hand"):
        yamledit.set_list(text.encode(), ("a",), ["y"], "f.yaml")


def test_words_in_lines_are_others_and_what_stands_around_them_stays() -> None:
    text = b"a:\n  w: >-\n    one\n    two\n  # of x\n  x: one two\n"

    assert yamledit.set_words(text, ("a", "w"), ["one", "new", "two"], "f") == text.replace(
        b"    two", b"    new\n    two"
    )
    assert yamledit.set_words(text, ("a", "w"), ["two"], "f") == text.replace(b"    one\n", b"")
    assert yamledit.add_word(text, ("a", "w"), "six", "f") == text.replace(b"    two", b"    two\n    six")
    assert yamledit.set_words(text, ("a", "x"), ["two"], "f") == text.replace(b"x: one two", b"x: two")
