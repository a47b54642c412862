import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from infra.local import cache
from infra.local.process import SetupProgress
from schema.errors import Unavailable


def test_half_a_download_is_never_taken_for_whole(tmp_path: Path) -> None:
    target = tmp_path / "neo4j" / "5"

    def cut_off(directory: Path) -> Mapping[str, object]:
        (directory / "first.jar").write_text("1")
        raise Unavailable("cut", "the network went away")

    def whole(directory: Path) -> Mapping[str, object]:
        assert list(directory.iterdir()) == []
        (directory / "all.jar").write_text("2")
        return {"version": "5"}

    with pytest.raises(Unavailable):
        cache.install(target, cut_off, SetupProgress())
    assert cache.contents(target) is None
    cache.install(target, whole, SetupProgress())
    assert cache.contents(target) == {"version": "5"}
    assert (target / "all.jar").exists()


def test_of_two_builders_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    target = tmp_path / "weaviate"
    builds: list[int] = []
    said: list[str] = []

    def build(directory: Path) -> Mapping[str, object]:
        builds.append(1)
        time.sleep(0.2)
        return {}

    threads = [
        threading.Thread(target=cache.install, args=(target, build, SetupProgress(said.append)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builds == [1]
    assert said == ["another process is fetching it"]


def test_a_waiting_builder_gives_up_when_the_platform_stops(tmp_path: Path) -> None:
    stopping = threading.Event()
    began, finish = threading.Event(), threading.Event()

    def slow(directory: Path) -> Mapping[str, object]:
        began.set()
        finish.wait(5)
        return {}

    holder = threading.Thread(target=cache.install, args=(tmp_path / "x", slow, SetupProgress()))
    holder.start()
    began.wait(5)
    stopping.set()
    with pytest.raises(Unavailable, match="stopped"):
        cache.install(tmp_path / "x", slow, SetupProgress(stopping=stopping))
    finish.set()
    holder.join()
