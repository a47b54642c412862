"""Lay out the steps of a plan: layers by longest path, few crossings, maps and loops as frames.

A layer that would be too wide is broken into rows. Long edges bend around the steps between their ends; those
that leave, or reach, the same step share the way. Steps that read each other live are of one layer and stand
side by side.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

WIDTH: Final = 196
HEIGHT: Final = 62
GAP: Final = 22
ROW_GAP: Final = 40
_LANE: Final = 10
"""Between long edges that run beside each other."""
_LANE_GAP: Final = 3
_TITLE: Final = 30
_PADDING: Final = 16
_ABREAST: Final = 9
"""Between two edges that join the same steps, there and back."""
_READING_GAP: Final = 76
"""Between steps that read each other: there is room for the edges' labels."""
_SWEEPS: Final = 4
_SETTLES: Final = 6

Link = tuple[str, str]


@dataclass
class Box:
    """A step, and where it is; of a map or loop its frame, with what is inside."""

    id: str
    width: float = WIDTH
    height: float = HEIGHT
    x: float = 0.0
    y: float = 0.0
    """The upper left corner, within the whole picture."""
    inside: "Layout | None" = None


@dataclass
class Layout:
    boxes: dict[str, Box]
    ways: dict[Link, list[tuple[float, float]]]
    """Edge → the points it passes, from below its source to above its target; or upwards, in a circle."""
    aside: dict[Link, list[tuple[float, float]]] = field(default_factory=dict)
    """Edge within a row → two points between neighbours; else four, around the steps that stand between."""
    width: float = 0.0
    height: float = 0.0


@dataclass(eq=False)
class _Cell:
    """A place in a row: a step, or a long edge that passes."""

    key: str
    width: float
    circle: str = ""
    """One of those that read each other, with whom it keeps together."""
    x: float = 0.0
    up: list["_Cell"] = field(default_factory=list)
    down: list["_Cell"] = field(default_factory=list)
    order: float = 0.0


def layout(nodes: Sequence[Mapping[str, Any]], links: Iterable[Link]) -> Layout:
    """Nodes are {id, frame}; a link goes from a step to one that begins after it, or that reads it live."""
    members: dict[str, list[str]] = defaultdict(list)
    frame_of = {node["id"]: node["frame"] for node in nodes}
    for node in nodes:
        members[node["frame"]].append(node["id"])
    known = [(a, b) for a, b in links if a in frame_of and b in frame_of]
    whole = _frame("", members, _within_frames(known, frame_of))
    _shift(whole, 0, 0)
    return whole


def _within_frames(links: Sequence[Link], frame_of: Mapping[str, str]) -> dict[str, list[Link]]:
    """Links by the frame in which both ends are drawn, an end inside a deeper frame by that frame."""

    def chain(step: str) -> list[str]:
        found = [step]
        while frame_of[found[-1]]:
            found.append(frame_of[found[-1]])
        return found

    result: dict[str, list[Link]] = defaultdict(list)
    for a, b in dict.fromkeys(links):
        over_b = {frame_of[one]: one for one in chain(b)}
        for one in chain(a):
            other = over_b.get(frame_of[one])
            if other is not None:
                if other != one:
                    result[frame_of[one]].append((one, other))
                break
    return result


def _frame(frame: str, members: Mapping[str, list[str]], links: Mapping[str, list[Link]]) -> Layout:
    boxes: dict[str, Box] = {}
    for id in members.get(frame, []):
        box = boxes[id] = Box(id)
        if id in members:
            box.inside = _frame(id, members, links)
            box.width = max(WIDTH, box.inside.width + 2 * _PADDING)
            box.height = box.inside.height + _TITLE + 2 * _PADDING
    return _place(boxes, list(dict.fromkeys(links.get(frame, []))))


def _place(boxes: dict[str, Box], links: list[Link]) -> Layout:
    circle_of = _circles(boxes, links)
    rows = _rows(boxes, links, circle_of)
    row_of = {id: at for at, row in enumerate(rows) for id in row}
    cells, by_row, paths = _cells(boxes, links, rows, row_of, circle_of)
    _order(by_row)
    _settle(by_row)
    left = min((cell.x - cell.width / 2 for row in by_row for cell in row), default=0.0)
    tops: list[float] = []
    y = 0.0
    heights = [max((boxes[id].height for id in row), default=HEIGHT) for row in rows]
    for height in heights:
        tops.append(y)
        y += height + ROW_GAP
    for id, box in boxes.items():
        at = row_of[id]
        box.x = cells[id].x - left - box.width / 2
        box.y = tops[at] + (heights[at] - box.height) / 2
    ways: dict[Link, list[tuple[float, float]]] = {}
    for (a, b), lanes in paths.items():
        way = [(cells[a].x - left, boxes[a].y + boxes[a].height)]
        for at, lane in lanes:
            way += [(lane.x - left, tops[at] - 6), (lane.x - left, tops[at] + heights[at] + 6)]
        ways[a, b] = [*way, (cells[b].x - left, boxes[b].y)]
    for a, b in links:
        if row_of[a] > row_of[b]:
            ways[a, b] = [(x + _ABREAST, y) for x, y in reversed(ways[b, a])]
    ways = {link: ways[link] for link in links if link in ways}
    aside = {(a, b): _aside(boxes, by_row[row_of[a]], a, b) for a, b in links if row_of[a] == row_of[b]}
    right = max((cell.x + cell.width / 2 for row in by_row for cell in row), default=0.0)
    below = max((y for way in aside.values() for _, y in way), default=0.0)
    return Layout(boxes, ways, aside, right - left, max(y - ROW_GAP, below))


def _aside(boxes: Mapping[str, Box], row: Sequence[_Cell], a: str, b: str) -> list[tuple[float, float]]:
    """The way between two steps of a row: straight where they are neighbours, else below the row."""
    source, target = boxes[a], boxes[b]
    to_right = source.x < target.x
    steps = [cell.key for cell in row if cell.key in boxes]
    if abs(steps.index(a) - steps.index(b)) == 1:
        middle = min(source.y + source.height, target.y + target.height) / 2 + max(source.y, target.y) / 2
        y = middle - _ABREAST if to_right else middle + _ABREAST
        ends = (source.x + source.width, target.x) if to_right else (source.x, target.x + target.width)
        return [(x, y) for x in ends]
    deep = max(boxes[id].y + boxes[id].height for id in steps) + ROW_GAP * 0.6
    start, end = (box.x + box.width / 2 + (_ABREAST if to_right else -_ABREAST) for box in (source, target))
    return [(start, source.y + source.height), (start, deep), (end, deep), (end, target.y + target.height)]


def _circles(boxes: Mapping[str, Box], links: Sequence[Link]) -> dict[str, str]:
    """Step → one of those that it reaches and that reach it: of steps in no circle, itself."""
    after, before = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for a, b in links:
        after[a].append(b)
        before[b].append(a)
    # Kosaraju: who is left last reaches all of its circle, which is what reaches it.
    left = _left(boxes, after)
    circle_of: dict[str, str] = {}
    for id in reversed(left):
        for one in _left([id], before, known=circle_of):
            circle_of[one] = id
    return circle_of


def _left(begin: Iterable[str], to: Mapping[str, Sequence[str]], known: Collection[str] = ()) -> list[str]:
    """Return reachable steps, each after all its successors; iterative, since plans may be long."""
    found: list[str] = []
    seen = set(known)
    for first in begin:
        waiting = [] if first in seen else [(first, iter(to.get(first, ())))]
        seen.add(first)
        while waiting:
            _, rest = waiting[-1]
            step = next((one for one in rest if one not in seen), None)
            if step is None:
                found.append(waiting.pop()[0])
            else:
                seen.add(step)
                waiting.append((step, iter(to.get(step, ()))))
    return found


def _rows(boxes: Mapping[str, Box], links: Sequence[Link], circle_of: Mapping[str, str]) -> list[list[str]]:
    """Layers by the longest way from a beginning, a circle in one of them, each in rows not too wide."""
    layers: dict[int, list[str]] = defaultdict(list)
    layer = _layers(boxes, links, circle_of)
    for id in boxes:
        layers[layer[circle_of[id]]].append(id)
    for wide in layers.values():
        first = {circle_of[id]: at for at, id in reversed(list(enumerate(wide)))}
        wide.sort(key=lambda id: first[circle_of[id]])
    most = max(4, min(8, math.ceil(math.sqrt(len(boxes)))))
    rows: list[list[str]] = []
    for at in sorted(layers):
        wide = layers[at]
        count = math.ceil(len(wide) / most)
        size = math.ceil(len(wide) / count)
        rows += [wide[start : start + size] for start in range(0, len(wide), size)]
    return rows


def _layers(boxes: Mapping[str, Box], links: Sequence[Link], circle_of: Mapping[str, str]) -> dict[str, int]:
    """Circle → its layer."""
    targets: dict[str, list[str]] = defaultdict(list)
    circles = dict.fromkeys(circle_of[id] for id in boxes)
    missing = dict.fromkeys(circles, 0)
    for a, b in dict.fromkeys((circle_of[a], circle_of[b]) for a, b in links):
        if a != b:
            targets[a].append(b)
            missing[b] += 1
    layer = dict.fromkeys(circles, 0)
    free = [one for one in circles if not missing[one]]
    for id in free:  # grows while it is walked
        for target in targets[id]:
            layer[target] = max(layer[target], layer[id] + 1)
            missing[target] -= 1
            if not missing[target]:
                free.append(target)
    return layer


def _cells(
    boxes: Mapping[str, Box],
    links: Sequence[Link],
    rows: Sequence[Sequence[str]],
    row_of: Mapping[str, int],
    circle_of: Mapping[str, str],
) -> tuple[dict[str, _Cell], list[list[_Cell]], dict[Link, list[tuple[int, _Cell]]]]:
    """Edges are led downwards, also those of a circle that goes on over several rows."""
    cells = {id: _Cell(id, box.width, circle_of[id]) for id, box in boxes.items()}
    by_row = [[cells[id] for id in row] for row in rows]
    leaving: dict[str, int] = defaultdict(int)
    reaching: dict[str, int] = defaultdict(int)
    for a, b in links:
        leaving[a] += 1
        reaching[b] += 1
    lanes: dict[tuple[str, int], _Cell] = {}
    paths: dict[Link, list[tuple[int, _Cell]]] = {}
    down = dict.fromkeys((b, a) if row_of[a] > row_of[b] else (a, b) for a, b in links)
    for a, b in down:
        if row_of[a] == row_of[b]:
            continue
        shared = f"{a}>" if leaving[a] >= reaching[b] else f">{b}"
        before, path = cells[a], []
        for at in range(row_of[a] + 1, row_of[b]):
            lane = lanes.get((shared, at))
            if lane is None:
                lane = lanes[shared, at] = _Cell(f"{shared}{at}", _LANE)
                by_row[at].insert(len(by_row[at]) // 2, lane)
            _join(before, lane)
            path.append((at, lane))
            before = lane
        _join(before, cells[b])
        paths[a, b] = path
    return cells, by_row, paths


def _join(upper: _Cell, lower: _Cell) -> None:
    if lower not in upper.down:
        upper.down.append(lower)
        lower.up.append(upper)


def _order(rows: list[list[_Cell]]) -> None:
    """Each cell towards the middle of its neighbours, down and up again."""
    for row in rows:
        for at, cell in enumerate(row):
            cell.order = (at + 0.5) / len(row)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in rows[1:] if down else reversed(rows[:-1]):
            for cell in row:
                near = cell.up if down else cell.down
                if near:
                    cell.order = sum(one.order for one in near) / len(near)
            _keep_together(row)
            row.sort(key=lambda cell: cell.order)
            for at, cell in enumerate(row):
                cell.order = (at + 0.5) / len(row)


def _keep_together(row: Sequence[_Cell]) -> None:
    """Keep steps that read each other side by side: sorting is stable among equals."""
    circles: dict[str, list[_Cell]] = defaultdict(list)
    for cell in row:
        circles[cell.circle or cell.key].append(cell)
    for members in circles.values():
        middle = sum(cell.order for cell in members) / len(members)
        for cell in members:
            cell.order = middle


def _settle(rows: list[list[_Cell]]) -> None:
    """Place each cell near its neighbours, in the order found, without overlap."""
    for row in rows:
        _pack(row)
    most = max((row[-1].x + row[-1].width / 2 for row in rows), default=0.0)
    for turn in range(_SETTLES):
        for row in rows if turn % 2 == 0 else reversed(rows):
            near = [cell.up + cell.down if turn > 1 else (cell.up or cell.down) for cell in row]
            wanted = [
                sum(one.x for one in of) / len(of) if of else cell.x
                for cell, of in zip(row, near, strict=True)
            ]
            _spread(row, wanted)
            _keep_within(row, most)


def _pack(row: list[_Cell]) -> None:
    """Side by side, around the middle."""
    x = 0.0
    for at, cell in enumerate(row):
        x += _apart(row[at - 1], cell) if at else 0.0
        cell.x = x
    _move(row, -(row[0].x - row[0].width / 2 + row[-1].x + row[-1].width / 2) / 2)


def _apart(left: _Cell, right: _Cell) -> float:
    """Between the middles of neighbours: long edges run closer together than steps stand."""
    between = _LANE_GAP if left.width == right.width == _LANE else GAP
    if left.circle and left.circle == right.circle:
        between = _READING_GAP
    return (left.width + right.width) / 2 + between


def _keep_within(row: list[_Cell], most: float) -> None:
    """No row reaches further out than the widest one must: row by row, long edges would drift away."""
    left, right = row[0].x - row[0].width / 2, row[-1].x + row[-1].width / 2
    if right - left > 2 * most + 1:
        _pack(row)
    elif left < -most:
        _move(row, -most - left)
    elif right > most:
        _move(row, most - right)


def _move(row: list[_Cell], by: float) -> None:
    for cell in row:
        cell.x += by


def _spread(row: list[_Cell], wanted: list[float]) -> None:
    """As close to the wanted places as the widths allow: pushed right, pushed left, the middle of both."""
    right: list[float] = []
    for cell, x in zip(row, wanted, strict=True):
        least = right[-1] + _apart(row[len(right) - 1], cell) if right else x
        right.append(max(x, least))
    left = list(wanted)
    for at in range(len(row) - 2, -1, -1):
        most = left[at + 1] - _apart(row[at], row[at + 1])
        left[at] = min(left[at], most)
    for at, cell in enumerate(row):
        cell.x = (right[at] + left[at]) / 2


def _shift(of: Layout, x: float, y: float) -> None:
    """From places within a frame to places within the picture."""
    for box in of.boxes.values():
        box.x += x
        box.y += y
        if box.inside is not None:
            free = box.width - box.inside.width
            _shift(box.inside, box.x + free / 2, box.y + _TITLE + _PADDING)
    for ways in (of.ways, of.aside):
        for link, way in ways.items():
            ways[link] = [(px + x, py + y) for px, py in way]
