"""Clean text that others wrote: models, providers, tools, web servers, clients."""

import re
from typing import Final

_UNCLEAN: Final = re.compile("[\0\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Return the text as Postgres, JSON and UTF-8 can hold it.

    The two halves of a surrogate pair become the one character that they mean, a half that stands alone
    becomes U+FFFD, and U+0000 is left out.
    """
    if not _UNCLEAN.search(text):
        return text
    return text.replace("\0", "").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
