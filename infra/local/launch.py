"""Becomes another program, after tying its life to its parent's. Run by path: standard library only.

An exec'd launcher and not `preexec_fn`: that one may deadlock in a process with threads, which the
supervisor is.
"""

import ctypes  # before the change of user, who may not be able to read this Python's files
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


def die_with_parent(parent_pid: int, death_signal: int) -> None:
    if not sys.platform.startswith("linux"):
        return  # elsewhere the next `up` ends what is left over
    libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent_pid:  # the parent died before prctl took effect
        os._exit(1)


def become_user(user: str) -> None:
    uid, gid = (int(part) for part in user.split(":"))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def main(arguments: list[str]) -> None:
    mode, user, niceness, *command = arguments
    os.nice(int(niceness))
    os.umask(0o077)  # private.UMASK: what a server writes is nobody else's
    if mode == "detach":
        if os.fork():
            os._exit(0)
        os.setsid()
    if user:
        become_user(user)
    if mode != "detach":
        # After the change of user, which clears the parent-death signal.
        parent_pid, death_signal = (int(part) for part in mode.split(":"))
        die_with_parent(parent_pid, death_signal)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        os.execvpe(command[0], command, os.environ)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
