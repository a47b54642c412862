"""Lock files of ports: nobody else lays links where we write."""

import os
from pathlib import Path

import pytest

from infra.local import cache, ports
from infra.local.ports import Ports
from schema.errors import Refused

WANTED = 29431
STRANGER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")


def test_a_link_in_the_registry_is_refused_and_its_target_kept(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("what must stay")
    registry = tmp_path / "ports"
    registry.mkdir(mode=0o700)
    (registry / str(WANTED)).symlink_to(victim)
    with pytest.raises(Refused) as refused:
        Ports(registry).choose({"api": WANTED})
    assert refused.value.code == "directory_not_ours"
    assert victim.read_text() == "what must stay"


def test_a_file_in_the_registry_is_locked_and_not_cut_off(tmp_path: Path) -> None:
    (tmp_path / str(WANTED)).write_text("what must stay")
    chosen = Ports(tmp_path)
    assert chosen.choose({"api": WANTED}) == {"api": WANTED}
    chosen.release()
    assert (tmp_path / str(WANTED)).read_text() == "what must stay"


@as_root
def test_a_registry_that_another_user_made_is_refused(tmp_path: Path) -> None:
    registry = tmp_path / "ports"
    registry.mkdir(mode=0o755)
    os.chown(registry, STRANGER, STRANGER)
    with pytest.raises(Refused, match=f"belongs to user {STRANGER}"):
        Ports(registry).choose({"api": WANTED})


@as_root
def test_a_lock_file_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / str(WANTED)).touch()
    os.chown(tmp_path / str(WANTED), STRANGER, STRANGER)
    with pytest.raises(Refused, match="no plain file of ours"):
        Ports(tmp_path).choose({"api": WANTED})


def test_a_registry_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    registry = tmp_path / "ports"
    registry.mkdir()
    registry.chmod(0o777)
    with pytest.raises(Refused, match="others may write to it"):
        Ports(registry).choose({"api": WANTED})


def test_a_registry_of_a_user_with_a_group_of_ones_own_is_closed_to_it(tmp_path: Path) -> None:
    registry = tmp_path / "ports"
    registry.mkdir()
    registry.chmod(0o775)
    chosen = Ports(registry)
    assert chosen.choose({"api": WANTED}) == {"api": WANTED}
    chosen.release()
    assert registry.stat().st_mode & 0o777 == 0o755


def test_a_registry_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ports").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="it is a link"):
        Ports(tmp_path / "ports").choose({"api": WANTED})


def test_the_registry_lies_where_only_we_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    assert ports.registry() == tmp_path / "runtime" / "facilitair" / "ports"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("FACILITAIR_CACHE", str(tmp_path / "cache"))
    assert ports.registry() == tmp_path / "cache" / "ports"


def test_programs_are_not_run_from_a_cache_that_others_may_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infra.local.process import SetupProgress

    shared = tmp_path / "cache"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("FACILITAIR_CACHE", str(shared))
    with pytest.raises(Refused, match="others may write to it"):
        cache.install(shared / "neo4j", lambda directory: {}, SetupProgress())
