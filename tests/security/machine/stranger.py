"""Becomes another user of the machine and says what that one can do. Run by path: standard library only.

Reads {"user", "files", "directories", "secrets", "environments", "requests"} from its input and prints what
succeeded. Nothing of it may succeed that tests/security/machine/test_other_users.py does not name.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any


def main() -> None:
    asked = json.load(sys.stdin)
    "".encode("idna")  # what urllib imports late, from files that the other user may not be able to read
    Path(os.devnull).read_text()
    os.setgroups([])
    os.setgid(asked["user"])
    os.setuid(asked["user"])
    told = {
        "files": [path for path in asked["files"] if reads(path)],
        "directories": [path for path in asked["directories"] if lists(path)],
        "environments": [path for path in asked["environments"] if reads(path)],
        "secrets": [
            name for name, secret in asked["secrets"].items() if any(secret in one for one in lines())
        ],
        "requests": {name: answer(one) for name, one in asked["requests"].items()},
    }
    json.dump(told, sys.stdout)


def reads(path: str) -> bool:
    with suppress(OSError), open(path, "rb") as file:  # noqa: PTH123
        file.read(1)
        return True
    return False


def lists(path: str) -> bool:
    with suppress(OSError):
        os.listdir(path)  # noqa: PTH208
        return True
    return False


def lines() -> list[str]:
    """The process list, as every user sees it."""
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit():
            with suppress(OSError):
                found.append(Path(f"/proc/{entry}/cmdline").read_text(errors="replace"))
    return found


def answer(asked: dict[str, Any]) -> list[Any]:
    """The status of a request, and who may read the answer in a browser."""
    body = None if asked.get("body") is None else json.dumps(asked["body"]).encode()
    request = urllib.request.Request(
        asked["url"], data=body, headers=asked.get("headers", {}), method=asked.get("method")
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as found:
            return [found.status, found.headers.get("Access-Control-Allow-Origin")]
    except urllib.error.HTTPError as error:
        return [error.code, error.headers.get("Access-Control-Allow-Origin")]


if __name__ == "__main__":
    main()
