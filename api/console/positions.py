"""Find the line and column of a JSON pointer in JSON or YAML text."""

import yaml

_MAX_CHARS = 300_000


def line_of(root: yaml.Node | None, pointer: str) -> int | None:
    """The line, counted from 1, of what a pointer names, or of the nearest thing around it."""
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


def read(text: str) -> yaml.Node | None:
    """The document as nodes that know their lines; None where it is too large or no document."""
    if len(text) > _MAX_CHARS:
        return None
    try:
        # JSON may be indented by tabs, which YAML refuses.
        found: yaml.Node | None = yaml.compose(text.replace("\t", " "), Loader=yaml.CSafeLoader)
    except yaml.YAMLError:
        return None
    return found
