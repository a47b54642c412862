"""A plan as SVG. It is drawn once: a page that watches a run changes marks and texts within it."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from api.console.dag import HEIGHT, Box, Layout, layout
from api.console.html import MARKS, text

_MARGIN: Final = 14
_ID_CHARS: Final = 22
_WHAT_CHARS: Final = 28
_FACTS_WIDTH: Final = 120
_TIP: Final = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" markerHeight="9" '
    'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0.5 8 4 0 7.5z"/></marker></defs>'
)
_KINDS: Final = {
    "agent": "✦",
    "tool": "⚙",
    "transform": "ƒ",
    "switch": "⋔",
    "map": "∀",
    "loop": "↻",
    "human": "☺",
    "collaboration": "❐",
    "wait": "◷",
}


def draw(nodes: Sequence[Mapping[str, Any]], edges: Sequence[Mapping[str, str]], label: str) -> str:
    """Nodes and edges as `POST /v1/definitions/plan` tells them."""
    placed = layout(nodes, [(edge["from"], edge["to"]) for edge in edges])
    kinds: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for edge in edges:
        kinds.setdefault((edge["from"], edge["to"]), []).append(edge)
    by_id = {node["id"]: node for node in nodes}
    lines: list[str] = []
    steps: list[str] = []
    _collect(placed, by_id, kinds, lines, steps)
    width, height = placed.width + 2 * _MARGIN, placed.height + 2 * _MARGIN
    return (
        f'<svg class="dag" role="group" aria-label="{text(label)}" data-width="{width:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="{-_MARGIN} {-_MARGIN} {width:.0f} {height:.0f}">{_TIP}'
        f"{''.join(lines)}{''.join(steps)}</svg>"
    )


def _collect(
    of: Layout,
    nodes: Mapping[str, Mapping[str, Any]],
    kinds: Mapping[tuple[str, str], Sequence[Mapping[str, str]]],
    lines: list[str],
    steps: list[str],
) -> None:
    for box in of.boxes.values():
        node = nodes[box.id]
        if box.inside is not None:
            lines.append(_frame(box, node))
            _collect(box.inside, nodes, kinds, lines, steps)
        else:
            steps.append(_step(box, node))
    for (source, target), way in of.ways.items():
        found = kinds.get((source, target)) or [{"kind": "need", "label": ""}]
        lines.append(_edge(source, target, _line(way), way[-2:], found))
    for (source, target), way in of.aside.items():
        found = kinds.get((source, target)) or [{"kind": "need", "label": ""}]
        lines.append(_edge(source, target, _around(way), _beside(way), found))


def _step(box: Box, node: Mapping[str, Any]) -> str:
    id, kind = str(node["id"]), str(node["kind"])
    what = str(node.get("what") or kind)
    return (
        f'<g class="step" data-step="{text(id)}" data-status="pending" tabindex="-1" role="button" '
        f'aria-label="{text(id)}, {text(what, 80)}, pending" transform="translate({box.x:.1f} {box.y:.1f})">'
        f"<title>{text(id)}: {text(what, 300)}</title>"
        f'<rect width="{box.width:.0f}" height="{HEIGHT}" rx="9"/>'
        f'<text class="mark" x="13" y="21">{MARKS["pending"]}</text>'
        f'<text class="id" x="30" y="21">{text(id, _ID_CHARS)}</text>'
        f'<text class="kind" x="{box.width - 12:.0f}" y="21">{_KINDS.get(kind, "")}</text>'
        f'<text class="what" x="13" y="38">{text(what, _WHAT_CHARS)}</text>'
        f'<text class="facts" x="13" y="53"></text></g>'
    )


def _frame(box: Box, node: Mapping[str, Any]) -> str:
    id = str(node["id"])
    words = str(node.get("what") or node["kind"])
    # What happens stands at the right end of the same line.
    most = int((box.width - _FACTS_WIDTH) / 6.2) - len(id[:_ID_CHARS]) - 6
    what = f'<tspan class="what" dx="8">{text(words, most)}</tspan>' if most > 8 else ""
    return (
        f'<g class="frame step" data-step="{text(id)}" data-status="pending" tabindex="-1" role="button" '
        f'aria-label="{text(id)}, {text(words, 80)}, pending" transform="translate({box.x:.1f} {box.y:.1f})">'
        f"<title>{text(id)}: {text(words, 300)}</title>"
        f'<rect width="{box.width:.0f}" height="{box.height:.0f}" rx="11"/>'
        f'<text class="mark" x="13" y="22">{MARKS["pending"]}</text>'
        f'<text class="id" x="30" y="22">{_KINDS.get(str(node["kind"]), "")} {text(id, _ID_CHARS)}'
        f"{what}</text>"
        f'<text class="facts" x="{box.width - 12:.0f}" y="22" text-anchor="end"></text></g>'
    )


def _line(way: Sequence[tuple[float, float]]) -> str:
    d = f"M{way[0][0]:.1f} {way[0][1]:.1f}"
    for (x0, y0), (x, y) in pairwise(way):
        middle = (y0 + y) / 2
        straight = abs(x - x0) < 0.5
        d += f"V{y:.1f}" if straight else f"C{x0:.1f} {middle:.1f} {x:.1f} {middle:.1f} {x:.1f} {y:.1f}"
    return d


def _around(way: Sequence[tuple[float, float]]) -> str:
    """Between steps of one row: straight to a neighbour, else in an arc."""
    begin, *rest = (f"{x:.1f} {y:.1f}" for x, y in way)
    return f"M{begin}{'C' if len(rest) > 1 else 'L'}{' '.join(rest)}"


def _beside(way: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the position of an edge's label within a row: above it to the right, below it to the left."""
    (x0, y), (x, _) = (way[0], way[1]) if len(way) == 2 else (way[1], way[2])
    by = -5 if x0 < x else 13
    return [(x0, y + by), (x, y + by)]


def _edge(
    source: str, target: str, d: str, end: Sequence[tuple[float, float]], found: Sequence[Mapping[str, str]]
) -> str:
    """`end` are the two points between which its label stands."""
    kinds = {edge["kind"] for edge in found}
    # Tokens flow along an edge that orders as well: the dashes say so.
    kind = "stream" if "stream" in kinds else next(edge["kind"] for edge in found)
    names = ", ".join(dict.fromkeys(edge["label"] for edge in found if edge["label"]))
    label = ""
    if names:
        (x0, y0), (x, y) = end
        label = (
            f'<text class="edge-label" x="{(x0 + x) / 2:.1f}" y="{(y0 + y) / 2:.1f}">{text(names, 24)}</text>'
        )
    return (
        f'<path class="edge {text(kind)}" data-from="{text(source)}" data-to="{text(target)}" d="{d}" '
        f'marker-end="url(#tip)"/>{label}'
    )
