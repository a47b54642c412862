"""Compares downloaded jars with the digests that this repository lists, in the form that sha256sum writes."""

import hashlib
from pathlib import Path

from schema.errors import Unavailable


def listed(listing: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that a listing names."""
    pairs = (line.split(maxsplit=1) for line in listing.read_text().splitlines())
    return {name.strip().removeprefix("*"): digest for digest, name in pairs}


def check(directory: Path, listing: Path) -> None:
    """Raise Unavailable("download_changed") unless every jar of a directory is one of a listing.

    The listing may hold more: Maven and jgo, each of which may have fetched them, choose a few others.
    """
    expected = listed(listing)
    found = {path.name: _sha256(path) for path in directory.glob("*.jar")}
    wrong = sorted(name for name, digest in found.items() if expected.get(name) != digest)
    if found and not wrong:
        return
    raise Unavailable(
        "download_changed",
        f"found {len(found)} jars in {directory}, of which {len(wrong)} are not those that {listing.name} "
        f"lists ({', '.join(wrong[:3])}); expected only files that were tested. Remove the "
        "directory to have them downloaded again. If it happens again, do not run them.",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
