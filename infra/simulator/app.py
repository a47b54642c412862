"""The HTTP face: OpenAI's chat completions, plus the controls of the simulator under /_simulator."""

import time
from dataclasses import dataclass
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.simulator.completions import Simulator, complete
from infra.simulator.faults import FaultPlan, RuleError
from infra.simulator.ledger import MAX_IN_PAGE, SimulatedCall
from infra.simulator.limits import LimitError
from infra.simulator.skills import SKILL_TABLE
from infra.simulator.wire import MARK, error_of

COMPLETIONS: Final = "/v1/chat/completions"


def make_app(seed: int = 0, speed: float = 1.0) -> ASGIApp:
    """The server; `speed` divides every delay, 0 and infinity mean none at all."""
    simulator = Simulator(seed, speed, FaultPlan(seed))
    others = Controls(simulator).app()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # Thousands of streams share one core: the calls themselves go past the framework.
        if scope["type"] == "http" and scope["path"] == COMPLETIONS and scope["method"] == "POST":
            await complete(simulator, scope, receive, send)
        else:
            await others(scope, receive, send)

    return app


@dataclass(frozen=True, slots=True)
class Controls:
    """The simulator's controls, besides completions."""

    simulator: Simulator

    async def calls(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.simulator.ledger.clear()
            return _json({"cleared": True})
        try:
            since, limit = _whole(request, "since"), _whole(request, "limit")
        except ValueError as error:
            return _refusal(400, "invalid_request_error", str(error))
        return _json(self.simulator.ledger.as_json(request.query_params.get("key"), since, limit))

    async def arrivals(self, request: Request) -> Response:
        try:
            since = float(request.query_params.get("since", "0"))
            limit = _whole(request, "limit")
        except ValueError as error:
            return _refusal(400, "invalid_request_error", str(error))
        most = MAX_IN_PAGE if limit is None else min(limit, MAX_IN_PAGE)
        return _json(self.simulator.ledger.arrivals(since, most))

    async def faults(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.simulator.faults.clear()
            return _json({"cleared": True})
        try:
            return _json({"added": self.simulator.faults.add(await request.json())})
        except (RuleError, ValueError, RecursionError) as error:
            return _refusal(400, "bad_rule", str(error))

    async def limits(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.simulator.limits.clear()
            return _json({"cleared": True})
        if request.method == "POST":
            try:
                self.simulator.limits.set(await request.json())
            except (LimitError, ValueError, RecursionError) as error:
                return _refusal(400, "bad_limit", str(error))
        return _json(self.simulator.limits.as_json(time.time()))

    async def generation(self, request: Request) -> Response:
        name = request.query_params.get("id", "")
        call = self.simulator.ledger.find(name)
        if call is None or call.outcome is None:
            state = "is still running" if call else "is not known"
            return _json({"error": {"code": 404, "message": f"Generation {name!r} {state}."}}, 404)
        return _json({"data": _generation(call)})

    async def models(self, _request: Request) -> Response:
        rows = [
            {"id": name, "object": "model", "created": 0, "owned_by": "facilitair-simulator"}
            for name in SKILL_TABLE
        ]
        return _json({"object": "list", "data": rows})

    async def health(self, _request: Request) -> Response:
        return _json({"status": "ok", "simulated": True})

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/generation", self.generation),
                Route("/v1/models", self.models),
                Route("/health", self.health),
                Route("/_simulator/calls", self.calls, methods=["GET", "DELETE"]),
                Route("/_simulator/arrivals", self.arrivals),
                Route("/_simulator/faults", self.faults, methods=["POST", "DELETE"]),
                Route("/_simulator/limits", self.limits, methods=["GET", "POST", "DELETE"]),
            ]
        )


def _generation(call: SimulatedCall) -> dict[str, object]:
    """In OpenRouter's shape. Prices are the platform's affair: tokens are billed here, money is not."""
    return {
        "id": call.id,
        "model": call.model,
        "created_at": call.began_at,
        "streamed": call.stream,
        "total_cost": None,
        "tokens_prompt": call.input_tokens,
        "tokens_completion": call.output_tokens,
        "native_tokens_prompt": call.input_tokens,
        "native_tokens_completion": call.output_tokens,
        "finish_reason": call.finish_reason if call.outcome == "finished" else None,
        "cancelled": call.outcome == "abandoned",
    }


def _whole(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ValueError(f"{name} is {text!r}; expected a whole number from 0")
    return int(text)


def _json(value: object, status: int = 200) -> Response:
    return JSONResponse(value, status_code=status, headers=MARK)


def _refusal(status: int, code: str, message: str) -> Response:
    return _json({"error": error_of(status, code, message)}, status)
