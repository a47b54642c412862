"""The hostile cases that `bench.security` plays come to what they must, and start, store and list nothing."""

from sqlalchemy.ext.asyncio import AsyncEngine

from bench.security.cases.bounds import cases, prepare
from schema.settings import Settings
from tests.support.api_client import door
from tests.support.runs import rows


async def test_what_would_multiply_or_grow_is_refused(settings: Settings, engine: AsyncEngine) -> None:
    stored = "SELECT (SELECT count(*) FROM workflows), (SELECT count(*) FROM webhooks)"
    open = []
    async with door(settings) as http:
        prey = await prepare(http)
        before = await rows(engine, stored)
        played = cases(prey)
        for case in played:
            answer = await http.request(case.method, case.path, json=case.body, params=case.query)
            told = answer.json()
            codes = {one["code"] for one in told.get("problems") or ()} | {told.get("code")}
            if answer.status_code != case.status or case.code not in codes:
                open.append((case.name, answer.status_code, sorted(map(str, codes))))
    assert open == []
    assert len({case.name for case in played}) == len(played) > 100
    assert await rows(engine, stored) == before
