"""Small plots as SVG, drawn once by the server: lines and points between two axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Final, Literal

from api.console.html import text

_WIDTH: Final = 440
_HEIGHT: Final = 250
_LEFT: Final = 54
_RIGHT: Final = 14
_TOP: Final = 12
_BOTTOM: Final = 38
_TICKS: Final = 4

Tone = Literal["a", "b", "c", "faint"]
"""A colour of the stylesheet, told apart also by its stroke."""


@dataclass(frozen=True)
class Series:
    name: str
    points: Sequence[tuple[float, float]]
    tone: Tone = "a"
    line: bool = True
    marks: bool = False
    sizes: Sequence[float] = ()
    """Radius of each mark in pixels; all alike where it is empty."""
    labels: Sequence[str] = ()
    """Labels of the marks, shown on hover."""
    names: Sequence[str] = ()
    """Names beside the marks."""


@dataclass(frozen=True)
class Axis:
    name: str
    low: float
    high: float
    unit: str = ""


def axis(name: str, values: Sequence[float], unit: str = "", *, from_zero: bool = False) -> Axis:
    """Around all values, from one round number to another."""
    low, high = 0.0 if from_zero else min(values), max(values)
    size = step(low, high if high > low else low + (abs(low) or 1.0))
    return Axis(name, floor(low / size) * size, max(ceil(high / size), floor(low / size) + 1) * size, unit)


def step(low: float, high: float) -> float:
    """The round number that divides a span into about _TICKS parts."""
    rough = (high - low) / _TICKS
    power = 10.0 ** floor(log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)


def plot(title: str, across: Axis, up: Axis, series: Sequence[Series]) -> str:
    """One SVG. What a plot shows stands in a table beside it, too, where it must be read exactly."""
    inside = "".join(_series(one, across, up) for one in series if one.points)
    return (
        f'<svg class="figure" role="img" aria-label="{text(title)}" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
        f"{_grid(across, up)}{inside}</svg>{_legend(series)}"
    )


def _x(value: float, of: Axis) -> float:
    return _LEFT + (value - of.low) / (of.high - of.low) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, of: Axis) -> float:
    return _HEIGHT - _BOTTOM - (value - of.low) / (of.high - of.low) * (_HEIGHT - _TOP - _BOTTOM)


def _grid(across: Axis, up: Axis) -> str:
    drawn = [
        f'<path class="grid" d="M{_LEFT} {_y(value, up):.1f}H{_WIDTH - _RIGHT}"/>'
        + _text(_LEFT - 6, _y(value, up) + 3.5, shown, "end")
        for value, shown in _ticks(up)
    ]
    drawn += [_text(_x(value, across), _HEIGHT - _BOTTOM + 15, shown) for value, shown in _ticks(across)]
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    drawn.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, across.name))
    drawn.append(f'<g transform="translate(10 {middle:.0f}) rotate(-90)">{_text(0, 0, up.name)}</g>')
    return "".join(drawn)


def _ticks(of: Axis) -> list[tuple[float, str]]:
    size = step(of.low, of.high)
    digits = max(0, -floor(log10(size) + 1e-9)) + (1 if f"{size:e}".startswith("2.5") else 0)
    first = ceil(of.low / size - 1e-9)
    last = floor(of.high / size + 1e-9)
    return [(at * size, f"{of.unit}{at * size:.{digits}f}") for at in range(first, last + 1)]


def _text(x: float, y: float, what: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text(what, 26)}</text>'


def _series(one: Series, across: Axis, up: Axis) -> str:
    places = [(_x(x, across), _y(y, up)) for x, y in one.points]
    drawn = ""
    if one.line and len(places) > 1:
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        drawn += f'<path class="line {one.tone}" d="M{path}"/>'
    # A line of one point would be nothing to see.
    if one.marks or len(places) == 1:
        drawn += "".join(_mark(one, at, x, y) for at, (x, y) in enumerate(places))
    return drawn


def _mark(one: Series, at: int, x: float, y: float) -> str:
    radius = one.sizes[at] if one.sizes else 3.5
    title = f"<title>{text(one.labels[at])}</title>" if one.labels else ""
    name = ""
    if one.names:
        # Towards the middle, or a name at the right edge would be cut.
        side, anchor = (-radius - 4, "end") if x > _WIDTH * 0.6 else (radius + 4, "start")
        name = _text(x + side, y + 3.5, one.names[at], anchor)
    return f'<circle class="{one.tone}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{title}</circle>{name}'


def _legend(series: Sequence[Series]) -> str:
    shown = list({one.name: one for one in series if one.points}.values())
    if len(shown) < 2:
        return ""
    items = "".join(
        f'<li><svg viewBox="0 0 20 8" aria-hidden="true">{_key(one)}</svg>{text(one.name)}</li>'
        for one in shown
    )
    return f'<ul class="keyed">{items}</ul>'


def _key(one: Series) -> str:
    line = f'<path class="line {one.tone}" d="M0 4H20"/>' if one.line else ""
    mark = f'<circle class="{one.tone}" cx="10" cy="4" r="3.5"/>' if one.marks else ""
    return line + mark
