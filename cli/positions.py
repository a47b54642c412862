"""Find the line and column of a JSON pointer in a file."""

from collections.abc import Iterable

import yaml

from schema.language.document import MAX_DEPTH


def lines(text: str, pointers: Iterable[str]) -> dict[str, int]:
    """pointer → line, for those that can be found. JSON is read as the YAML that it nearly is."""
    text = text.replace("\t", " ")
    try:
        # libyaml composes by recursion in C: a deep document would end the process.
        root = yaml.compose(text, Loader=yaml.CSafeLoader) if _is_shallow(text) else None
    except yaml.YAMLError:
        return {}
    found = {pointer: _line(root, pointer) for pointer in pointers if pointer}
    return {pointer: line for pointer, line in found.items() if line is not None}


def _is_shallow(text: str) -> bool:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            return False
    return True


def _line(node: yaml.Node | None, pointer: str) -> int | None:
    """The line of the deepest part that exists: a missing field is reported at its parent."""
    line = None
    for part in pointer.split("/")[1:]:
        child = _child(node, part.replace("~1", "/").replace("~0", "~"))
        if child is None:
            break
        line, node = child
    return line


def _child(node: yaml.Node | None, part: str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and part.isdecimal() and int(part) < len(node.value):
        value = node.value[int(part)]
        return value.start_mark.line + 1, value
    return None
