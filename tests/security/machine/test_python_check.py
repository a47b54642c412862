"""ruff tells far more of a source than the source is long: no more of it is read than is told."""

import tracemalloc

from activities.tools.python_check import MAX_FINDINGS, MAX_MESSAGE_CHARS, check

MIB = 1024 * 1024


async def test_findings_without_number_are_not_held() -> None:
    source = "import a\n" * (MIB // 10)
    tracemalloc.start()
    try:
        found = await check(source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(found["findings"]), found["truncated"]) == (MAX_FINDINGS, True)
    assert peak < 16 * MIB


async def test_a_finding_does_not_quote_a_name_without_end() -> None:
    found = await check(f"import {'a' * 100_000}\n")
    assert [one["code"] for one in found["findings"]] == ["F401"]
    assert len(found["findings"][0]["message"]) == MAX_MESSAGE_CHARS
