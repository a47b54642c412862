"""Whatever is uploaded is refused with a code. bench/hostile.py measures the same uploads."""

from bench.hostile import refusal
from bench.hostile_uploads import uploads


def test_every_hostile_upload_is_refused() -> None:
    codes = {upload.name: refusal(upload) for upload in uploads()}
    assert len(codes) >= 300
    assert [name for name, code in codes.items() if not code] == []
