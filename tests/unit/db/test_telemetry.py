"""Where spans go."""

import pytest

from db.telemetry import exporters
from schema.settings import Settings


@pytest.mark.parametrize("named", ["", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_spans_stay_in_postgres_and_go_to_an_otlp_endpoint_too(
    named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named:
        monkeypatch.setenv(named, "http://127.0.0.1:4318")
    found = [type(one).__name__ for one in exporters("worker", Settings())]
    assert found == ["_PostgresExporter", *(["OTLPSpanExporter"] if named else [])]
