"""The plan's picture as a browser has it: what stands where, read from the page and not from its pixels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from playwright.async_api import Page

_READ: Final = """() => {
  const svg = document.querySelector("svg.dag");
  const at = (node, x, y) => {
    const p = new DOMPoint(x, y).matrixTransform(node.getCTM());
    return [p.x, p.y];
  };
  const steps = [...svg.querySelectorAll("g.step")].map((g) => {
    const rect = g.querySelector("rect");
    const [left, top] = at(rect, 0, 0);
    const [right, bottom] = at(rect, rect.width.baseVal.value, rect.height.baseVal.value);
    return { id: g.dataset.step, frame: g.classList.contains("frame"), left, top, right, bottom };
  });
  const edges = [...svg.querySelectorAll("path.edge")].map((path) => {
    const points = [];
    for (let part = 0; part <= 40; part++) {
      const p = path.getPointAtLength(path.getTotalLength() * part / 40);
      points.push(at(path, p.x, p.y));
    }
    return { source: path.dataset.from, target: path.dataset.to, points };
  });
  const box = svg.viewBox.baseVal, [left, top] = at(svg, box.x, box.y);
  const [right, bottom] = at(svg, box.x + box.width, box.y + box.height);
  return { steps, edges, whole: { id: "", frame: true, left, top, right, bottom } };
}"""
_NEAR: Final = 3.0
"""Pixels between the end of an edge and the step that it belongs to."""


@dataclass(frozen=True)
class DrawnStep:
    """A step as it is drawn, in pixels of the picture."""

    id: str
    frame: bool
    left: float
    top: float
    right: float
    bottom: float

    def holds(self, point: tuple[float, float], within: float = 0.0) -> bool:
        """Return whether a point lies inside, by more than `within`; a negative one lets it lie outside."""
        x, y = point
        return self.left + within < x < self.right - within and self.top + within < y < self.bottom - within

    def around(self, other: "DrawnStep") -> bool:
        return self.frame and all(
            self.holds(corner) for corner in ((other.left, other.top), (other.right, other.bottom))
        )


async def faults(page: Page, plan: Mapping[str, Any]) -> list[str]:
    """What is wrong with the picture of a plan, as `POST /v1/definitions/plan` tells it; nothing is right."""
    drawn = await page.evaluate(_READ)
    steps = {one["id"]: DrawnStep(**one) for one in drawn["steps"]}
    found = [f"{id} is not drawn" for id in {node["id"] for node in plan["nodes"]} ^ steps.keys()]
    found += _misplaced(plan, steps, DrawnStep(**drawn["whole"]))
    found += _edges(plan, steps, drawn["edges"])
    return found


def _misplaced(plan: Mapping[str, Any], steps: Mapping[str, DrawnStep], whole: DrawnStep) -> list[str]:
    found = [f"{one.id} is cut" for one in steps.values() if not whole.around(one)]
    frames = {node["id"]: node["frame"] for node in plan["nodes"]}
    for id, frame in frames.items():
        if frame and not steps[frame].around(steps[id]):
            found.append(f"{id} stands outside of {frame}")
    for a, b in combinations(steps.values(), 2):
        inside = a.around(b) or b.around(a)
        if not inside and a.left < b.right and b.left < a.right and a.top < b.bottom and b.top < a.bottom:
            found.append(f"{a.id} and {b.id} overlap")
    return found


def _edges(
    plan: Mapping[str, Any], steps: Mapping[str, DrawnStep], drawn: Iterable[Mapping[str, Any]]
) -> list[str]:
    frames = {node["id"]: node["frame"] for node in plan["nodes"]}
    found: list[str] = []
    known = {(one["source"], one["target"]): one["points"] for one in drawn}
    for edge in plan["edges"]:
        ends = _in_one_frame(edge["from"], edge["to"], frames)
        if ends is not None and ends not in known:
            found.append(f"the edge {edge['from']} → {edge['to']} is not drawn")
    for (source, target), points in known.items():
        name = f"the edge {source} → {target}"
        for step, point in ((source, points[0]), (target, points[-1])):
            if not steps[step].holds(point, -_NEAR) or steps[step].holds(point, _NEAR):
                found.append(f"{name} does not touch {step}")
        found += [
            f"{name} runs across {one.id}"
            for one in steps.values()
            if not one.frame and any(one.holds(point, _NEAR) for point in points)
        ]
        if (target, source) not in known and _leads_up(points) and not _in_circle(source, target, known):
            found.append(f"{name} leads up")
    return found


def _in_one_frame(a: str, b: str, frames: Mapping[str, str]) -> tuple[str, str] | None:
    """The ends of an edge as they are drawn: those around them that stand in one frame."""

    def chain(step: str) -> list[str]:
        return [step, *(chain(frames[step]) if frames[step] else [])]

    over_b = {frames[one]: one for one in chain(b)}
    for one in chain(a):
        if (other := over_b.get(frames[one])) is not None:
            return (one, other) if one != other else None
    return None


def _leads_up(points: list[tuple[float, float]]) -> bool:
    return points[-1][1] < points[0][1] - _NEAR


def _in_circle(source: str, target: str, edges: Iterable[tuple[str, str]]) -> bool:
    reached, waiting = {target}, [target]
    while waiting:
        step = waiting.pop()
        new = {b for a, b in edges if a == step} - reached
        reached |= new
        waiting += new
    return source in reached
