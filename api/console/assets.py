"""Our own stylesheets and scripts, under addresses that change with their content."""

import hashlib
from functools import cache
from html import escape
from pathlib import Path
from typing import Final

_STATIC: Final = Path(__file__).parent / "static"
# Before the first paint, or a dark page would flash white.
_THEME: Final = """<script>(() => {
  const kept = localStorage.getItem("facilitair-theme") || "auto";
  document.documentElement.dataset.theme = kept;
})()</script>"""


@cache
def address(name: str) -> str:
    digest = hashlib.sha256((_STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/console/static/{name}?{digest}"


def head(*scripts: str) -> str:
    """What every page's head holds; `scripts` are loaded in their order, once the page has been read."""
    tags = "".join(f'<script defer src="{escape(address(name))}"></script>' for name in scripts)
    return f'{_THEME}<link rel="stylesheet" href="{escape(address("console.css"))}">{tags}'
