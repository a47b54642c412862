import socket
from pathlib import Path

import pytest

from infra.local.ports import Ports, is_free

WANTED = 29417


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_someone_uses_is_not_chosen(kind: socket.SocketKind, host: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            other.listen()
        taken: int = other.getsockname()[1]
        ports = Ports(tmp_path)
        chosen = ports.choose({"api": taken})["api"]
        ports.release()
        assert not is_free(taken)
        assert chosen != taken
        assert is_free(chosen)


def test_the_wanted_port_is_chosen_when_free_and_again_after_release(tmp_path: Path) -> None:
    for _ in range(2):
        ports = Ports(tmp_path)
        assert ports.choose({"api": WANTED}) == {"api": WANTED}
        ports.release()


def test_two_copies_never_choose_the_same_port_before_anything_listens(tmp_path: Path) -> None:
    first, second = Ports(tmp_path), Ports(tmp_path)
    names = dict.fromkeys(("postgres", "temporal", "api"), WANTED)
    chosen = [*first.choose(names).values(), *second.choose(names).values()]
    first.release()
    second.release()
    assert len(set(chosen)) == 6


def test_only_the_taken_port_moves(tmp_path: Path) -> None:
    first = WANTED
    other = Ports(tmp_path)
    other.choose({"postgres": first})
    ports = Ports(tmp_path, alternatives=range(first, first + 9))
    chosen = ports.choose({"postgres": first, "temporal": first + 1, "api": first + 2})
    ports.release()
    other.release()
    assert chosen == {"postgres": first + 3, "temporal": first + 1, "api": first + 2}


def test_a_port_with_closing_connections_counts_as_free() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port: int = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = server.accept()
            accepted.close()  # this side closes first, so it is the one left in TIME_WAIT
    assert is_free(port)
