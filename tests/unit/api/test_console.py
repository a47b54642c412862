"""The console's parts that need neither a browser nor NiceGUI: gate, pictures, forms, feed."""

import itertools
import random
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.console import dag_svg, feed, forms, html
from api.console.dag import Box, Layout, layout
from schema.live import PlacedEvent, StepBegan, StepEnded, TokensCame
from schema.rules import positions
from schema.settings import Settings


async def test_the_root_leads_to_the_console() -> None:
    app = create_app(Settings())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        for path in ("/", "/console"):
            assert (await http.get(path)).headers["location"] == "/console/"
        assert (await http.get("/console/", headers={"host": "evil.example"})).status_code == 403
        style = await http.get("/console/static/console.css")
        assert (style.status_code, style.headers["content-type"].split(";")[0]) == (200, "text/css")


def test_the_api_starts_without_nicegui() -> None:
    code = "import sys, api.app; sys.exit('nicegui' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _all(of: Layout) -> list[Box]:
    return [one for box in of.boxes.values() for one in (box, *(_all(box.inside) if box.inside else ()))]


def _apart(boxes: list[Box]) -> bool:
    return all(
        a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y
        for a, b in itertools.combinations(boxes, 2)
    )


@pytest.mark.parametrize("shape", ["chain", "fan", "random"])
def test_two_hundred_steps_stand_apart_and_below_what_they_need(shape: str) -> None:
    chance = random.Random(1)
    names = [f"s{at}" for at in range(200)]
    links = {
        "chain": list(itertools.pairwise(names)),
        "fan": [("s0", name) for name in names[1:-1]] + [(name, "s199") for name in names[1:-1]],
        "random": [(f"s{chance.randrange(at)}", f"s{at}") for at in range(1, 200) for _ in range(2)],
    }[shape]
    found = layout([{"id": name, "frame": ""} for name in names], links)
    assert len(found.boxes) == 200
    assert _apart(list(found.boxes.values()))
    for a, b in links:
        assert found.boxes[a].y + found.boxes[a].height <= found.boxes[b].y
    for box in found.boxes.values():
        assert box.x >= -0.01
        assert box.x + box.width <= found.width + 0.01
        assert box.y + box.height <= found.height + 0.01


def _plan(names: str, *links: str) -> Layout:
    return layout([{"id": name, "frame": ""} for name in names], [(one[0], one[1]) for one in links])


def test_who_reads_each_other_stands_side_by_side() -> None:
    found = _plan("abv", "ab", "ba", "av", "bv")
    a, b, verdict = (found.boxes[name] for name in "abv")
    assert a.y == b.y
    assert verdict.y > a.y + a.height
    assert set(found.ways) == {("a", "v"), ("b", "v")}
    (there, back) = found.aside["a", "b"], found.aside["b", "a"]
    assert [x for x, _ in there] == [a.x + a.width, b.x]
    assert [x for x, _ in back] == [b.x, a.x + a.width]
    assert there[0][1] < back[0][1], "there and back are two lines"


def test_a_circle_of_three_goes_around_who_stands_between() -> None:
    found = _plan("abc", "ab", "bc", "ca")
    assert len({box.y for box in found.boxes.values()}) == 1
    around = [way for way in found.aside.values() if len(way) == 4]
    assert len(around) == 1
    below = max(box.y + box.height for box in found.boxes.values())
    assert all(y >= below for _, y in around[0])
    assert max(y for _, y in around[0]) <= found.height


def test_a_circle_over_several_rows_has_all_its_edges() -> None:
    names = "abcdefghijkl"
    links = [*map("".join, itertools.pairwise(names)), "la"]
    found = _plan(names, *links)
    assert {(one[0], one[1]) for one in links} == found.ways.keys() | found.aside.keys()
    assert _apart(list(found.boxes.values()))


def test_what_is_repeated_stands_in_its_frame() -> None:
    nodes = [
        {"id": "list", "frame": ""},
        {"id": "each", "frame": ""},
        {"id": "read", "frame": "each"},
        {"id": "judge", "frame": "each"},
        {"id": "sum", "frame": ""},
    ]
    found = layout(nodes, [("list", "each"), ("read", "judge"), ("each", "sum"), ("gone", "sum")])
    frame = found.boxes["each"]
    assert frame.inside is not None
    for inner in frame.inside.boxes.values():
        assert frame.x < inner.x
        assert inner.x + inner.width < frame.x + frame.width
        assert frame.y < inner.y
        assert inner.y + inner.height < frame.y + frame.height
    assert _apart([found.boxes["list"], frame, found.boxes["sum"]])
    assert _apart(list(frame.inside.boxes.values()))


def test_nothing_a_user_wrote_becomes_markup() -> None:
    evil = "<img src=x onerror=alert(1)>\"'"
    nodes = [{"id": "a", "kind": "agent", "what": evil, "frame": ""}, {"id": "b", "kind": "map", "frame": ""}]
    edges = [{"from": "a", "to": "b", "kind": "branch", "label": evil}]
    shown = [
        dag_svg.draw(nodes, edges, evil),
        forms.fields({"properties": {evil: {"type": "string", "description": evil, "default": evil}}}, "x"),
        forms.fields({"properties": {"a": {"enum": [evil]}, "b": {"default": {evil: evil}}}}, "x"),
        html.badge(evil),
        html.moment(evil),
        html.embed(f"</script>{evil}"),
    ]
    assert not any("<img" in one or "</script" in one for one in shown)


def test_a_form_is_made_from_a_schema() -> None:
    shown = forms.fields(
        {
            "required": ["task"],
            "properties": {
                "task": {"type": "string", "description": "What to do."},
                "count": {"type": "integer", "minimum": 1, "default": 3},
                "loud": {"type": "boolean", "default": True},
                "tone": {"enum": ["dry", "warm"]},
                "files": {"type": "array"},
            },
        },
        "start",
    )
    assert '<textarea rows="2" id="start-task" data-name="task" data-kind="string" required>' in shown
    assert '<input type="number" step="1" min="1" value="3" id="start-count"' in shown
    assert 'data-name="loud" data-kind="boolean" checked' in shown
    assert '<option value="&quot;dry&quot;">dry</option>' in shown
    assert 'data-name="files" data-kind="json"' in shown
    assert "What to do." in shown
    assert 'data-name="" data-kind="json"' in forms.fields({"type": "array"}, "start")


@pytest.mark.parametrize(
    ("pointer", "line"),
    [
        ("", 1),
        ("/steps/b", 5),
        ("/steps/b/needs/1", 6),
        ("/steps/c", 3),
        ("/steps/a/prompt/x", 4),
        ("/x~1y", 9),
    ],
)
def test_a_pointer_has_a_line(pointer: str, line: int) -> None:
    written = """{
  "name": "x",
  "steps": {
    "a": {"prompt": "p"},
    "b": {
      "needs": ["a", "z"]
    }
  },
  "x/y": 1
}"""
    assert positions.line_of(positions.read(written), pointer) == line
    assert positions.read("{") is None
    assert positions.line_of(None, "/a") is None


def _live(event: Any) -> PlacedEvent:
    return PlacedEvent("0.0", datetime(2026, 1, 1, tzinfo=UTC), event)


def test_tokens_of_one_execution_are_told_together_and_before_its_end() -> None:
    began = StepBegan("e1", "a", "a", "agent", 1, "writer", "m")
    ended = StepEnded("e1", "a", "a", "agent", 1, "writer", "completed", "m", 1, 2, 0.5, 100)
    told = feed.merged(
        [
            _live(began),
            _live(TokensCame("e1", "a", "one ", 0, 1)),
            _live(TokensCame("e2", "b", "other", 0, 1)),
            _live(TokensCame("e1", "a", "two", 1, 2)),
            _live(ended),
            _live(TokensCame("e1", "a", "late", 3, 1)),
        ]
    )
    assert [one[0] for one in told] == ["b", "t", "t", "e", "t"]
    assert told[1] == ["t", "e1", "one two", 3]
    assert told[4] == ["t", "e1", "late", 1]
    assert [len(piece) for piece in feed.pieces([["t", "e", "x" * 150_000, 1]] * 3)] == [1, 1, 1]
    assert feed.pieces([]) == []
