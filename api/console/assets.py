"""Our own stylesheets and scripts, under addresses that change with their content."""

import hashlib
from functools import cache
from html import escape
from pathlib import Path
from typing import Final

_STATIC: Final = Path(__file__).parent / "static"


@cache
def address(name: str) -> str:
    digest = hashlib.sha256((_STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/console/static/{name}?{digest}"


def head(*scripts: str) -> str:
    """Return the head of every page. `scripts` load in order once the page has been read."""
    tags = "".join(f'<script defer src="{escape(address(name))}"></script>' for name in scripts)
    # The theme before the first paint, or a dark page would flash white.
    theme = f'<script src="{escape(address("theme.js"))}"></script>'
    return f'{theme}<link rel="stylesheet" href="{escape(address("console.css"))}">{tags}'
