"""Find the line of a JSON pointer in JSON or YAML text. JSON is read as the YAML that it nearly is."""

from collections.abc import Iterable

import yaml

from schema.language.document import MAX_DEPTH


def read(text: str, max_chars: int | None = None) -> yaml.Node | None:
    """Return the document as nodes that know their lines; None if it is too large, deep or malformed."""
    if max_chars is not None and len(text) > max_chars:
        return None
    # JSON may be indented by tabs, which YAML refuses.
    text = text.replace("\t", " ")
    try:
        # libyaml composes by recursion in C: a deep document would end the process.
        found: yaml.Node | None = yaml.compose(text, Loader=yaml.CSafeLoader) if _is_shallow(text) else None
    except yaml.YAMLError:
        return None
    return found


def line_of(root: yaml.Node | None, pointer: str) -> int | None:
    """Return the line, counted from 1, of what a pointer names, or of the nearest thing around it."""
    node = root
    if node is None:
        return None
    line = node.start_mark.line + 1
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == name), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and name.isdecimal() and int(name) < len(node.value):
            node = node.value[int(name)]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def lines(text: str, pointers: Iterable[str]) -> dict[str, int]:
    """Return pointer → line, without the pointer to the whole; empty for text that is no document."""
    root = read(text)
    found = {pointer: line_of(root, pointer) for pointer in pointers if pointer}
    return {pointer: line for pointer, line in found.items() if line is not None}


def _is_shallow(text: str) -> bool:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            return False
    return True
