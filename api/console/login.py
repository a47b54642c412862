"""The page that asks for the key. It is given once, and never stands in a page or an address."""

from html import escape
from urllib.parse import quote

from api.console.assets import head
from schema.errors import FacilitairError, TryLater

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in · Facilitair</title>
<meta name="viewport" content="width=device-width, initial-scale=1">{head}</head>
<body class="fc-login"><main class="card">
<h1><span class="logo" aria-hidden="true"></span>Facilitair</h1>
<form method="post" action="/console/login?next={next}">
<label for="key">API key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus
  aria-describedby="hint"{invalid}>
<p id="hint" class="{tone}" role="{role}">{hint}</p>
<button class="primary" type="submit">Sign in</button>
</form></main></body></html>"""


def page(after: str, *, wrong: FacilitairError | None = None) -> str:
    """Return the page; `wrong` says why what was given before is not taken."""
    return _PAGE.format(
        head=head(),
        next=escape(quote(after, safe="/")),
        invalid=' aria-invalid="true"' if wrong else "",
        tone="bad" if wrong else "muted",
        role="alert" if wrong else "note",
        hint=escape(_hint(wrong)),
    )


def _hint(wrong: FacilitairError | None) -> str:
    if wrong is None:
        return "The value of FACILITAIR_API_KEY."
    if isinstance(wrong, TryLater):
        return f"Too many wrong keys. Wait {wrong.retry_after_seconds} s before the next try."
    return "That is not the key."
