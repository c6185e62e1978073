"""The one place that edits YAML: replaces scalars by splicing bytes, so that nothing else of the file changes.

Loading and dumping a document re-indents, re-wraps and re-quotes it. `compose()` of ruamel.yaml gives the span of
every node in the text instead, and the new value is written into that span.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gitops.manifests.objects import at

from contract.errors import Refused


@dataclass(frozen=True)
class Named:
    """A step of a path into a list: the item whose `name`, or whatever `key` leads to, is this."""

    name: str
    key: tuple[str, ...] = ("name",)


Step = str | Named
Path = tuple[Step, ...]


class _Constructor(SafeConstructor):
    """The same, but for what is text to the other readers."""


_Constructor.add_constructor("tag:yaml.org,2002:value", SafeConstructor.construct_yaml_str)


def _reader(kind: str) -> YAML:
    reader = YAML(typ=kind, pure=True)
    # An anchor may be defined again, and what it means is clear.
    reader.composer.warn_double_anchors = False
    return reader


def show(path: Path) -> str:
    """A path as people write it: `spec.containers[api].image`."""
    out = ""
    for step in path:
        if isinstance(step, Named):
            out += f"[{step.name}]"
        else:
            out += f"{'.' if out else ''}{step}"
    return out


def get(text: bytes, path: Path, file: str) -> str | None:
    """The scalar at `path`, or None where the path leads nowhere. Raises Refused for what cannot be read."""
    _, source = _decode(text, file)
    if (simple := _simple(source)) and (found := _walk(simple[0], path)) is not _UNCLEAR:
        return found
    node = _find(_document(_composed(source, file), (path,), file), path, file)
    if node is None:
        return None
    if not isinstance(node, ScalarNode):
        raise Refused(f"{file}: {show(path)}: a {_kind(node)}, not a single value")
    return str(node.value)


def load(text: bytes, file: str) -> Any:
    """The one document of a file as plain data. Raises Refused for what cannot be read."""
    _, source = _decode(text, file)
    return _copied(simple[0]) if (simple := _simple(source)) else copy.deepcopy(_load(source, file))


def _copied(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _copied(value) for key, value in data.items()}
    return [_copied(item) for item in data] if isinstance(data, list) else data


# What a text without these has is the same to every version of YAML: no anchors, aliases, tags, tabs, directives,
# documents or merges, and of block scalars those that are written as most are.
_SPECIAL = re.compile(r"[&*!>\t\\]|\|(?!-?\n *[^ \n])|^(---|\.\.\.|%)|<<|\?(\s|\Z)|[^\n\x20-\x7e]", re.MULTILINE)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_FIGURES = re.compile(r"[-+]?0[xob][0-9a-f_]+|[-+]?[.:0-9_]+(e[-+]?[0-9_]*)?", re.IGNORECASE)
_STRING, _INTEGER = "tag:yaml.org,2002:str", "tag:yaml.org,2002:int"
_C_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNCLEAR = "\0"


@lru_cache(maxsize=256)
def _simple(source: str) -> tuple[Any] | None:
    """The one document of a simple text as plain data, read by libyaml in a thirtieth of the time. None for any other
    text, good or bad, which ruamel.yaml reads: one with anything whose meaning depends on YAML's version."""
    if _SPECIAL.search(source):
        return None
    try:
        return (_data(yaml.compose(source, Loader=_C_LOADER)),)
    except (yaml.YAMLError, _Unclear, RecursionError):
        return None


class _Unclear(Exception):
    pass


def _data(node: Any) -> Any:
    if isinstance(node, yaml.ScalarNode) and node.tag == _STRING and (node.style or not _otherwise(node.value)):
        return node.value
    if isinstance(node, yaml.ScalarNode) and node.tag == _INTEGER and _NUMBER.fullmatch(node.value):
        return int(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_data(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        found = {_data(key): _data(value) for key, value in node.value if isinstance(key, yaml.ScalarNode)}
        if len(found) == len(node.value) and all(isinstance(key, str) for key in found):
            return found
    raise _Unclear


def _otherwise(plain: str) -> bool:
    """Whether some version of YAML may take a plain scalar for something else than a string."""
    return bool(_OTHER.fullmatch(plain) or _FIGURES.fullmatch(plain))


def _walk(data: Any, path: Path) -> str | None:
    """The scalar at `path`, None where it leads nowhere, and _UNCLEAR for what is to be told of by _find()."""
    for step in path:
        if isinstance(step, Named):
            items = [item for item in data if _called_so(item, step)] if isinstance(data, list) else []
            if len(items) > 1:
                return _UNCLEAR
            data = items[0] if items else None
        else:
            data = data.get(step) if isinstance(data, dict) else None
        if data is None:
            return None
    return _UNCLEAR if isinstance(data, dict | list) else str(data)


def _called_so(item: Any, step: Named) -> bool:
    for key in step.key:
        item = item.get(key) if isinstance(item, dict) else None
    return item is not None and not isinstance(item, dict | list) and str(item) == step.name


# A file is looked at a dozen times while it is checked. Nobody changes the nodes, and who loads data gets a copy.
_cached = lru_cache(maxsize=256)


@_cached
def _load(source: str, file: str) -> Any:
    _require_known_tags(_compose(source, file), file)
    reader = _reader("safe")
    reader.Constructor = _Constructor
    try:
        return reader.load(_without_tabs(source))
    except (YAMLError, ValueError) as error:
        raise _not_yaml(error, file) from None


def edit(text: bytes, changes: Mapping[Path, str], file: str) -> bytes:
    """`text` with the scalars at these paths replaced; every other byte stays. Of several documents it is the one that
    has all the fields.

    Raises Refused, naming `file` and the field, when the text is not YAML, no document or more than one has the fields,
    a field is missing or is no plain scalar on one line (a list, an anchor, an alias, a tag, a block scalar), or the
    result would not read back as intended.
    """
    bom, source = _decode(text, file)
    root = _document(_nodes(source, file), changes, file)
    spans: list[tuple[int, int, str]] = []
    for path, value in changes.items():
        node = _find(root, path, file)
        if node is None:
            raise Refused(f"{file}: {show(path)}: missing; add the field, only its value is written by commands")
        if not isinstance(node, ScalarNode):
            raise Refused(f"{file}: {show(path)}: a {_kind(node)}, not a single value")
        start, end = node.start_mark.index, node.end_mark.index
        old = source[start:end]
        _require_unshared(root, path, file)
        _require_plain(node, old, path, file)
        # What stands there plain may be no string: `true` is one only in quotes.
        if node.value != value or (old == value and needs_quotes(value)):
            if not value.isprintable():
                raise Refused(f"{file}: {show(path)}: {value!r} has a character that cannot be printed")
            if not old:
                start = end = _behind_colon(root, path, source, file)
            spans.append((start, end, f"{'' if old else ' '}{_write(value, old)}"))
    for start, end, written in sorted(spans, reverse=True):
        source = source[:start] + written + source[end:]
    after = _document(_nodes(source, file), changes, file)
    for path, value in changes.items():
        node = _find(after, path, file)
        if not isinstance(node, ScalarNode) or node.value != value:
            raise Refused(f"{file}: {show(path)}: {value!r} cannot be written here")
    return bom + source.encode()


def _behind_colon(root: Node, path: Path, source: str, file: str) -> int:
    """Where the value of a key that has none would begin. Raises Refused where there is no colon either."""
    parent = _find(root, path[:-1], file)
    pairs = parent.value if isinstance(parent, MappingNode) else []
    for key, _ in pairs:
        if key.value == path[-1] and (colon := re.compile(" *:").match(source, key.end_mark.index)):
            return colon.end()
    raise Refused(f"{file}: {show(path)}: empty; write a value there, commands only replace one")


def add_after(text: bytes, path: Path, sibling: Path, value: str, file: str) -> bytes:
    """`text` with a new scalar at `path`, on lines of its own behind those of `sibling`; every other byte stays.

    Both are keys of one mapping, or the `value` of two named items of one list. Raises Refused unless the sibling is
    there, in block style and shared by no anchor.
    """
    bom, source = _decode(text, file)
    root = _compose(source, file)
    named = isinstance(path[-2], Named)
    parent = _find(root, sibling[:-1], file)
    refused = Refused(f"{file}: {show(path)}: cannot be added behind {show(sibling)}; add the field by a pull request")
    if (
        not isinstance(parent, MappingNode)
        or parent.flow_style
        or not isinstance(_value(parent, str(sibling[-1])), Node)
    ):
        raise refused
    _require_unshared(root, sibling, file)
    first, last = _ends(parent, None if named else str(sibling[-1]))
    start = source.rfind("\n", 0, first) + 1
    lead = source[start:first]
    if not re.fullmatch(r" *- +" if named else r" *", lead):
        raise refused
    newline = "\r\n" if "\r\n" in source else "\n"
    lines = [f"{lead}{path[-1]}: {_write(value, '')}"]
    if named:
        step = path[-2]
        assert isinstance(step, Named)
        lines = [f"{lead}name: {step.name}", f"{' ' * len(lead)}value: {_write(value, '')}"]
    end = source.find("\n", last)
    written = newline.join(lines)
    at = len(source) if end < 0 else end + 1
    changed = source[:at] + (f"{newline}{written}" if end < 0 else f"{written}{newline}") + source[at:]
    if not _only_added(root, _compose(changed, file), path, value, file):
        raise refused
    return bom + changed.encode()


def add_item(
    text: bytes, path: tuple[str, ...], item: Mapping[str, str] | str, file: str, *, new: bool = False
) -> bytes:
    """`text` with a scalar or a mapping of scalars more at the end of the list at `path`, or where that may be `new`
    and is missing, with it at its own end; every other byte stays. Raises Refused unless the list is in block style, of
    the like and shared by no anchor."""
    bom, source = _decode(text, file)
    root = _compose(source, file)
    newline = "\r\n" if "\r\n" in source else "\n"
    found, before = _find(root, path, file), _load(source, file)
    _require_unshared(root, path, file)
    if new and len(path) == 1 and isinstance(before, Mapping) and path[0] not in before:
        lead, head, rest = "  - ", f"{source}{'' if source.endswith(newline) else newline}{path[0]}:{newline}", ""
    else:
        lead, head, rest = _behind_items(found, item, source, newline)
    fields = [f"{key}: {_write(value, '')}" for key, value in item.items()] if isinstance(item, Mapping) else []
    lines = f"{newline}{' ' * len(lead)}".join(fields or [_write(str(item), "")])
    changed = f"{head}{lead}{lines}{newline}{rest}"
    if not lead or not _is_like(before, _load(changed, file), path, [*(at(before, *path) or []), item]):
        raise Refused(f"{file}: {show(path)}: no list of the like, a line each; add {_shown(item)} by hand")
    return bom + changed.encode()


def _behind_items(found: Node | None, item: Mapping[str, str] | str, source: str, newline: str) -> tuple[str, str, str]:
    """What stands before each item of a list of the like in block style, and the text before and behind its end."""
    like = MappingNode if isinstance(item, Mapping) else ScalarNode
    if not isinstance(found, SequenceNode) or found.flow_style or not found.value:
        return "", "", ""
    lead = _lead(source, found.value[0])
    if not re.fullmatch(r" *- +", lead) or not isinstance(found.value[-1], like):
        return "", "", ""
    end = source.find("\n", _tail(found.value[-1]).end_mark.index - 1)
    return (lead, source[: end + 1], source[end + 1 :]) if end >= 0 else (lead, f"{source}{newline}", "")


def _is_like(before: Any, after: Any, path: tuple[str, ...], items: Sequence[Any]) -> bool:
    """Whether values are others at a path only, where these are."""
    return (at(after, *path) or []) == list(items) and _without(before, path) == _without(after, path)


def _lead(source: str, item: Node) -> str:
    return source[_line(source, item) : item.start_mark.index]


def _tail(node: Node) -> Node:
    """What is written last of a node: a scalar, or something in flow style."""
    while isinstance(node, MappingNode | SequenceNode) and node.value and not node.flow_style:
        node = node.value[-1][1] if isinstance(node, MappingNode) else node.value[-1]
    return node


def remove_item(text: bytes, path: tuple[str, ...], item: Mapping[str, str] | str, file: str) -> bytes:
    """`text` without an item of the list at `path`, and without the list where that was all; every other byte stays.
    Raises Refused unless the item is there, once, on lines of its own, and shared by no anchor."""
    bom, source = _decode(text, file)
    root = _compose(source, file)
    _require_unshared(root, path, file)
    found, before = _find(root, path, file), _load(source, file)
    items = list(at(before, *path) or [])
    refused = Refused(
        f"{file}: {show(path)}: does not have {_shown(item)} once, on lines of its own; remove it by hand"
    )
    parent = _find(root, path[:-1], file) if path[:-1] else root
    if not isinstance(found, SequenceNode) or not isinstance(parent, MappingNode):
        raise refused
    if found.flow_style or items.count(item) != 1:
        raise refused
    node = found.value[items.index(item)]
    first = _line(source, node)
    if len(items) == 1:
        first = source.rfind("\n", 0, _ends(parent, path[-1])[0]) + 1
    end = source.find("\n", _tail(node).end_mark.index - 1)
    changed = source[:first] + (source[end + 1 :] if end >= 0 else "")
    items.remove(item)
    if not _is_like(before, _load(changed, file), path, items):
        raise refused
    return bom + changed.encode()


def _without(data: Any, path: tuple[str, ...]) -> Any:
    """Values without those at a path."""
    if not isinstance(data, Mapping):
        return data
    kept = {key: value for key, value in data.items() if key != path[0]}
    return kept | ({path[0]: _without(data.get(path[0]), path[1:])} if path[1:] else {})


def _shown(item: Mapping[str, str] | str) -> str:
    return str(dict(item)) if isinstance(item, Mapping) else item


def add_word(text: bytes, path: tuple[str, ...], word: str, file: str) -> bytes:
    """`text` with a word more at the end of the words at `path`, on a line of its own where they stand in lines; every
    other byte stays. Raises Refused unless they are a folded block scalar, or a scalar that `edit` writes."""
    # The value of a node has marks where it was folded.
    return _with_words(text, path, [*str(at(load(text, file), *path) or "").split(), word], file, added=True)


def set_words(text: bytes, path: tuple[str, ...], words: Sequence[str], file: str) -> bytes:
    """`text` with these in the place of the words at `path`, like `add_word`."""
    return _with_words(text, path, words, file)


def _with_words(text: bytes, path: tuple[str, ...], words: Sequence[str], file: str, *, added: bool = False) -> bytes:
    """`added`: only the last of them is new."""
    bom, source = _decode(text, file)
    node = _find(_compose(source, file), path, file)
    if not isinstance(node, ScalarNode) or node.style != ">":
        return edit(text, {path: " ".join(words)}, file)
    first = source.find("\n", node.start_mark.index) + 1
    # Up to the first line that is indented less: comments follow the text, and ruamel.yaml counts them in.
    lines = re.match(r"(?P<blanks> +)\S.*(?:\r?\n(?P=blanks)\S.*)*", source[first:])
    refused = Refused(f"{file}: {show(path)}: no words in lines; write {' '.join(words)} there by hand")
    if not first or not lines:
        raise refused
    newline = "\r\n" if "\r\n" in source else "\n"
    end = first + lines.end() - lines[0].endswith("\r")
    kept, new = (source[first:end], words[-1:]) if added else ("", words)
    written = newline.join([*([kept] if kept else []), *(f"{lines['blanks']}{word}" for word in new)])
    changed = f"{source[:first]}{written}{source[end:]}"
    if str(at(load(changed.encode(), file), *path)).split() != list(words):
        raise refused
    return bom + changed.encode()


# Lists and fields


def set_list(text: bytes, path: Path, wanted: Sequence[str], file: str) -> bytes:
    """`text` with these scalars in the list at `path`, in each document that has it; those that stay keep their bytes,
    and so does all else. Raises Refused where no document has the list, or it cannot be written so."""
    bom, source = _decode(text, file)
    having = [at for at, node in enumerate(_composed(source, file)) if _is_list(_find(node, path, file))]
    for number in having:
        source = _with_list(source, number, path, wanted, file)
    found = [_find(node, path, file) for node in _composed(source, file)]
    if not having or any(_texts(found[number]) != list(wanted) for number in having):
        raise Refused(f"{file}: {show(path)}: no list of single values; write {', '.join(wanted)} by hand")
    return bom + source.encode()


def _is_list(node: Node | None) -> bool:
    return isinstance(node, SequenceNode) and all(isinstance(each, ScalarNode) for each in node.value)


def _texts(node: Node | None) -> list[object]:
    return [each.value for each in node.value] if isinstance(node, SequenceNode) else []


def _with_list(source: str, number: int, path: Path, wanted: Sequence[str], file: str) -> str:
    def now() -> Any:
        return _find(_composed(source, file)[number], path, file)

    found = _texts(now())
    gone = [value for value in found if value not in wanted]
    # A list in lines is one only while it has an item: the last to go leaves when others are there.
    late = gone[:1] if wanted and len(gone) == len(found) else []
    for value in gone[len(late) :]:
        source = _without_item(source, now(), _texts(now()).index(value))
    for place, value in enumerate(wanted):
        if _texts(now())[place : place + 1] != [value]:
            source = _with_item(source, now(), place, [_write(value, "")])
    return _without_item(source, now(), len(wanted)) if late else source


def add_entry(text: bytes, path: Path, at: int, lines: Sequence[str], file: str) -> bytes:
    """`text` with a new item of the list at `path`, before that at the position `at`; every other byte stays. `lines`
    are the item as it is written, without the dash. Raises Refused unless the list has a line or more for each item."""
    return _listed(text, path, file, lambda source, node: _with_item(source, node, at, lines))


def remove_entry(text: bytes, path: Path, at: int, file: str) -> bytes:
    """`text` without an item of the list at `path`, and the comments right above it, or without the list where that was
    all; every other byte stays."""

    def without(source: str, node: SequenceNode) -> str:
        parent = _find(_compose(source, file), path[:-1], file)
        if len(node.value) > 1 or not isinstance(parent, MappingNode):
            return _without_item(source, node, at)
        start = source.rfind("\n", 0, _ends(parent, str(path[-1]))[0]) + 1
        return source[:start] + source[_end(source, node) :]

    return _listed(text, path, file, without)


def _listed(text: bytes, path: Path, file: str, change: Callable[[str, SequenceNode], str]) -> bytes:
    bom, source = _decode(text, file)
    node = _find(_compose(source, file), path, file)
    if not isinstance(node, SequenceNode) or node.flow_style or not node.value:
        raise Refused(f"{file}: {show(path)}: no list with a line or more for each item; write it so")
    _require_unshared(_compose(source, file), path, file)
    return bom + change(source, node).encode()


def add_field(text: bytes, sibling: Path, written: str, file: str) -> bytes:
    """`text` with a field more, `KEY: VALUE` as it is written, behind that of `sibling`; every other byte stays."""
    bom, source = _decode(text, file)
    root = _compose(source, file)
    parent = _find(root, sibling[:-1], file)
    pairs = parent.value if isinstance(parent, MappingNode) else []
    found = [(key, value) for key, value in pairs if key.value == sibling[-1]]
    if not isinstance(parent, MappingNode) or not found:
        raise Refused(f"{file}: {show(sibling)}: missing; add {written} by hand")
    [(key, value)] = found
    if parent.flow_style:
        end = value.end_mark.index
        return bom + f"{source[:end]}, {written}{source[end:]}".encode()
    lead = " " * (key.start_mark.index - source.rfind("\n", 0, key.start_mark.index) - 1)
    return bom + _with_lines(source, _end(source, value), [f"{lead}{written}"]).encode()


def _with_item(source: str, node: SequenceNode, at: int, lines: Sequence[str]) -> str:
    items = node.value
    if node.flow_style:
        if not items:
            place, written = node.start_mark.index + 1, lines[0]
        elif at:
            place, written = items[at - 1].end_mark.index, f", {lines[0]}"
        else:
            place, written = items[0].start_mark.index, f"{lines[0]}, "
        return source[:place] + written + source[place:]
    start, lead = _line(source, items[0]), _lead(source, items[0])
    leads = [lead, *[" " * len(lead)] * (len(lines) - 1)]
    whole = [f"{before}{line}" for before, line in zip(leads, lines, strict=True)]
    return _with_lines(source, _end(source, items[at - 1]) if at else start, whole)


def _without_item(source: str, node: SequenceNode, at: int) -> str:
    items = node.value
    if node.flow_style:
        start, end = items[at].start_mark.index, items[at].end_mark.index
        if at:
            start = items[at - 1].end_mark.index
        elif len(items) > 1:
            end = items[1].start_mark.index
        return source[:start] + source[end:]
    start = _line(source, items[at])
    # What stands right above it tells about it.
    head = re.sub(r"(?:(?<=\n)[ \t]*#[^\n]*\n)+\Z", "", source[:start]) if at else source[:start]
    return head + source[_end(source, items[at]) :]


def _with_lines(source: str, place: int, lines: Sequence[str]) -> str:
    newline = "\r\n" if "\r\n" in source else "\n"
    before = "" if not place or source[place - 1] == "\n" else newline
    return source[:place] + before + "".join(f"{line}{newline}" for line in lines) + source[place:]


def _line(source: str, node: Node) -> int:
    """Where the line begins in which a node does."""
    return source.rfind("\n", 0, node.start_mark.index) + 1


def _end(source: str, node: Node) -> int:
    """Where the line behind a node begins; ruamel.yaml counts the comments behind a block in."""
    node = _tail(node)
    start, end = node.start_mark.index, node.end_mark.index
    written = re.sub(r"(?:\s*\n[ \t]*(?:#[^\n]*)?)+\Z", "", source[start:end])
    found = source.find("\n", start + len(written))
    return len(source) if found < 0 else found + 1


# All scalars

Change = Callable[[str, str], str]


def rewrite(text: bytes, change: Change, file: str) -> bytes:
    """`text` with what `change(path, written)` gives in the place of each scalar as it is written, without its quotes,
    by the paths of `leaves`; keys, comments and every other byte stay.

    The YAML of a block scalar, such as a patch in a kustomization, is rewritten in turn, by its own paths, and the
    value of a JSON patch by the path that the patch has. Raises Refused for what is not YAML.
    """
    bom, source = _decode(text, file)
    return bom + _rewritten(source, change, file).encode()


def _rewritten(source: str, change: Change, file: str) -> str:
    # An alias leads to the scalars of its anchor again.
    found = {node.start_mark.index: (path, node) for each in _composed(source, file) for path, node in _scalars(each)}
    for start, (path, node) in sorted(found.items(), reverse=True):
        end = node.end_mark.index
        source = source[:start] + _changed(source[start:end], path, node, change, file) + source[end:]
    return source


def _changed(written: str, path: str, node: ScalarNode, change: Change, file: str) -> str:
    head, body, tail = "", written, ""
    if node.style in ("'", '"'):
        head, body, tail = written[0], written[1:-1], written[-1]
    elif node.style in ("|", ">"):
        head, newline, body = written.partition("\n")
        head += newline
    # What is escaped has other places in the text than in its value.
    nested = node.style in ("|", ">") or (node.style == "'" and "''" not in body)
    return head + (_rewritten(body, change, file) if nested and _is_nested(body, file) else change(path, body)) + tail


def _is_nested(body: str, file: str) -> bool:
    """Whether a text is YAML of more than one value."""
    try:
        return any(not isinstance(each, ScalarNode) for each in _composed(body, file))
    except Refused:
        return False


def _scalars(node: Node, path: str = "") -> Iterator[tuple[str, ScalarNode]]:
    if isinstance(node, ScalarNode):
        yield path, node
    elif isinstance(node, SequenceNode):
        for at, item in enumerate(node.value):
            yield from _scalars(item, f"{path}[{_name(item, ('name',)) or at}]")
    elif isinstance(node, MappingNode):
        patched = _name(node, ("path",)) if _value(node, "op") else None
        for key, value in node.value:
            inner = f"{path}.{key.value}" if path else str(key.value)
            if patched and key.value == "value":
                inner = _pointed(patched, value)
            yield from _scalars(value, inner)


def _pointed(pointer: str, value: Node) -> str:
    """The path of the value of a JSON patch, whose pointer has positions where others have names."""
    keys, name = pointer.strip("/").split("/"), _name(value, ("name",))
    return f"{'.'.join(keys[:-1])}[{name}]" if name else ".".join(keys)


def _ends(parent: MappingNode, key: str | None) -> tuple[int, int]:
    """Where the pair of a key begins and ends in the text, or those of a whole mapping."""
    pairs = [(name, value) for name, value in parent.value if key in (None, name.value)]
    return pairs[0][0].start_mark.index, pairs[-1][1].end_mark.index


def _only_added(before: Node, after: Node, path: Path, value: str, file: str) -> bool:
    """Whether the scalar at `path` is all that is new."""
    found = _find(after, path, file)
    if not isinstance(found, ScalarNode) or found.value != value:
        return False
    last = path[-2] if isinstance(path[-2], Named) else path[-1]
    outer = path[: path.index(last)]
    there, here = _find(after, outer, file), _find(before, outer, file)
    kept = [_plain(item) for item in there.value if not _called(item, last)] if there else []
    return here is not None and kept == _plain(here.value)


def _called(item: Any, step: Step) -> bool:
    """Whether an item of a list, or a pair of a mapping, is that of a step of a path."""
    if isinstance(step, Named):
        return _name(item, step.key) == step.name
    return bool(item[0].value == step)


def _plain(node: object) -> object:
    """The values of nodes without their places."""
    if isinstance(node, tuple | list):
        return [_plain(item) for item in node]
    return (node.tag, _plain(node.value)) if isinstance(node, Node) else node


def _decode(text: bytes, file: str) -> tuple[bytes, str]:
    bom = b"\xef\xbb\xbf" if text.startswith(b"\xef\xbb\xbf") else b""
    try:
        return bom, text[len(bom) :].decode()
    except UnicodeDecodeError as error:
        raise Refused(f"{file}: byte {len(bom) + error.start}: not UTF-8; save the file as UTF-8") from None


def _without_tabs(source: str) -> str:
    """The same text for ruamel.yaml, which takes no tab where YAML has one: between a value and the end of its line.
    As many blanks stand there instead, so that every index into the text stays right."""
    return re.sub(r"[ \t]+(?=#|[\r\n]|\Z)", lambda match: " " * len(match[0]), source)


def _not_yaml(error: Exception, file: str) -> Refused:
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        return Refused(f"{file}: {where}not YAML: {error.problem or error.context}")
    return Refused(f"{file}: not YAML: {' '.join(str(error).split())}")


def _nodes(source: str, file: str) -> list[Node]:
    """The documents of a text, with the places of their scalars. For a simple text libyaml finds them, as it does
    values."""
    return [_node(yaml.compose(source, Loader=_C_LOADER))] if _simple(source) else _composed(source, file)


def _document(documents: list[Node], paths: Iterable[Path], file: str) -> Node:
    """Of several documents the one that has the fields at these paths."""
    if len(documents) == 1:
        return documents[0]
    wanted = list(paths)
    having = [node for node in documents if all(_find(node, path, file) is not None for path in wanted)]
    if len(having) != 1:
        fields = ", ".join(map(show, wanted))
        which = "none of them has" if documents else "there is no"
        raise Refused(
            f"{file}: {len(documents)} documents, and {f'{len(having)} of them have' if having else which} {fields};"
            " write the fields into exactly one"
        )
    return having[0]


def _node(found: Any) -> Node:
    """The same of ruamel.yaml."""
    place = found.start_mark, found.end_mark
    if isinstance(found, yaml.MappingNode):
        return MappingNode(found.tag, [(_node(key), _node(value)) for key, value in found.value], *place)
    if isinstance(found, yaml.SequenceNode):
        return SequenceNode(found.tag, [_node(item) for item in found.value], *place)
    return ScalarNode(found.tag, found.value, *place, style=found.style)


def _compose(source: str, file: str) -> Node:
    """The one document of a text."""
    documents = _composed(source, file)
    if len(documents) != 1:
        raise Refused(f"{file}: {len(documents)} documents; it must hold exactly one")
    return documents[0]


@_cached
def _composed(source: str, file: str) -> list[Node]:
    try:
        # None is a document that holds comments alone.
        composed = _reader("rt").compose_all(_without_tabs(source))
        documents: list[Node] = [node for node in composed if node is not None]
    except (YAMLError, ValueError) as error:
        raise _not_yaml(error, file) from None
    except RecursionError:
        raise Refused(f"{file}: nested too deeply") from None
    for node in documents:
        _require_unique_keys(node, file)
    return documents


def _require_unique_keys(node: Node, file: str, seen: set[int] | None = None) -> None:
    seen = set() if seen is None else seen
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if isinstance(key, ScalarNode):
                if key.value in keys:
                    raise Refused(f"{file}: line {key.start_mark.line + 1}: key {key.value!r} stands twice; remove one")
                keys.add(key.value)
            _require_unique_keys(value, file, seen)
    elif isinstance(node, SequenceNode):
        for item in node.value:
            _require_unique_keys(item, file, seen)


def _require_known_tags(root: Node, file: str) -> None:
    """Refuses a tag of somebody's own: what is under it means nothing to the other readers of the file."""
    for node in _below(root, set()):
        tag = str(node.tag or "")
        if tag.startswith("!") and tag != "!":
            raise Refused(f"{file}: line {node.start_mark.line + 1}: has the tag {tag}; remove it")


def _below(node: Node, seen: set[int]) -> Iterator[Node]:
    if id(node) in seen:
        return
    seen.add(id(node))
    yield node
    for item in node.value if isinstance(node, SequenceNode | MappingNode) else ():
        for each in item if isinstance(item, tuple) else (item,):
            yield from _below(each, seen)


def _kind(node: Node) -> str:
    return "list" if isinstance(node, SequenceNode) else "mapping"


def _find(node: Node | None, path: Path, file: str) -> Node | None:
    for position, step in enumerate(path, 1):
        if isinstance(step, Named):
            items = node.value if isinstance(node, SequenceNode) else []
            named = [item for item in items if _name(item, step.key) == step.name]
            if len(named) > 1:
                raise Refused(f"{file}: {show(path[:position])}: stands {len(named)} times; remove all but one")
            node = named[0] if named else None
        else:
            node = _value(node, step)
    return node


def _name(item: Node, key: tuple[str, ...]) -> str | None:
    name: Node | None = item
    for step in key:
        name = _value(name, step)
    return str(name.value) if isinstance(name, ScalarNode) else None


def _value(node: Node | None, key: str) -> Node | None:
    pairs = node.value if isinstance(node, MappingNode) else []
    return next((value for name, value in pairs if isinstance(name, ScalarNode) and name.value == key), None)


def _require_unshared(root: Node, path: Path, file: str) -> None:
    """Refuses a field that is, or is a part of, something with an anchor: a change of it might be one elsewhere too."""
    for position in range(1, len(path) + 1):
        node = _find(root, path[:position], file)
        if node is not None and node.anchor is not None:
            place = show(path[:position])
            raise Refused(f"{file}: {place}: shares its value by the anchor &{node.anchor}; write the value out")


def _require_plain(node: ScalarNode, written: str, path: Path, file: str) -> None:
    if written.startswith("!"):
        raise Refused(f"{file}: {show(path)}: has the tag {written.split()[0]}; remove it")
    if node.style in ("|", ">"):
        raise Refused(f"{file}: {show(path)}: a block scalar; write the value on one line")
    if len(written.splitlines()) > 1:
        raise Refused(f"{file}: {show(path)}: several lines; write the value on one line")


# Characters that mean nothing to YAML anywhere in a plain scalar, in block and in flow style.
_PLAIN = re.compile(r"[A-Za-z0-9/][A-Za-z0-9_./@+-]*(?::[A-Za-z0-9_./@+-]+)*")
# What YAML 1.2 or the parser of Kubernetes and Kustomize, which skips underscores, takes for something else than a
# string, besides what PyYAML does.
_OTHER = re.compile(
    r"[0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?|0[xob][0-9a-f]+|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(t.*)?|y|n", re.IGNORECASE
)
_RESOLVER = yaml.resolver.Resolver()


def scalar(value: str) -> str:
    """A text as a plain scalar, or in quotes where that would be something else."""
    return _write(value, "")


def needs_quotes(value: str) -> bool:
    """Whether this text, written plain, would be something else than a string to some reader of YAML."""
    if not _PLAIN.fullmatch(value) or _OTHER.fullmatch(value.replace("_", "")):
        return True
    tag = _RESOLVER.resolve(yaml.ScalarNode, value, (True, False))  # type: ignore[no-untyped-call]
    return bool(tag != "tag:yaml.org,2002:str")


def _write(value: str, old: str) -> str:
    """`value` in the style of the scalar it replaces; quoted where a plain one would be ambiguous.

    Double quotes that the old value needed are dropped when the new one needs none, so that writing a value and
    writing the old one back gives the same bytes.
    """
    if old.startswith("'"):
        return "'" + value.replace("'", "''") + "'"
    chosen = old.startswith('"') and not needs_quotes(old[1:-1])
    return json.dumps(value, ensure_ascii=False) if chosen or needs_quotes(value) else value
