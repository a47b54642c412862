"""Single keys on a terminal, read without waiting."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

KeyReader = Callable[[], str]


@contextlib.contextmanager
def keys() -> Iterator[KeyReader | None]:
    """The key that was pressed last, "" where none was; None where there is no keyboard to read."""
    try:
        import select
        import termios
        import tty
    except ImportError:  # Windows
        yield None
        return
    if not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed() -> str:
        if not select.select([descriptor], [], [], 0)[0]:
            return ""
        return os.read(descriptor, 64).decode(errors="replace")[-1:]

    # Ctrl-C stays what it is.
    tty.setcbreak(descriptor)
    try:
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
