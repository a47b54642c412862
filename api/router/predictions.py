"""Ask the router without running anything: for one step or many, and what it is made of."""

from fastapi import APIRouter, Request, Response

from api.http import prometheus
from api.http.bodies import body_of, read_json
from api.http.problems import errors
from api.router.facts import model_info
from api.router.models import BatchPrediction, BatchRequest, ModelInfo, Prediction, PredictRequest
from api.state import Simulated, StateOf, Tenant

router = APIRouter(prefix="/router", tags=["router"])
seed_router = APIRouter()
"""The same at the addresses that programs know from other prediction services."""


@seed_router.post("/predict")
@router.post("/predict", openapi_extra=body_of(PredictRequest), responses=errors(413, 415))
async def predict(request: Request, state: StateOf, tenant: Tenant, simulated: Simulated) -> Prediction:
    """Return the model that the router would choose for a step, its expectation of each candidate, and its
    confidence.

    Nothing is recorded. Without a serving checkpoint, rules answer, and the response says so.
    """
    wanted = await read_json(request, state, PredictRequest)
    [found] = await state.predicting.predict(state.engine, tenant, [wanted], simulated=simulated)
    return found


@seed_router.post("/batch-predict")
@router.post("/batch-predict", openapi_extra=body_of(BatchRequest), responses=errors(413, 415))
async def batch_predict(
    request: Request, state: StateOf, tenant: Tenant, simulated: Simulated
) -> BatchPrediction:
    """As `predict`, of up to 256 steps at once: their texts are embedded together."""
    wanted = await read_json(request, state, BatchRequest)
    found = await state.predicting.predict(state.engine, tenant, wanted.steps, simulated=simulated)
    return BatchPrediction(predictions=found)


@seed_router.get("/model-info")
@router.get("/model-info", responses=errors())
async def read_model_info(state: StateOf, tenant: Tenant, simulated: Simulated) -> ModelInfo:
    """The checkpoint that serves, and whether this process has it at hand. Loads nothing."""
    return await model_info(state, tenant, simulated=simulated)


@seed_router.get("/metrics")
@router.get("/metrics", response_class=Response, responses=errors() | {200: {"content": {"text/plain": {}}}})
async def metrics(state: StateOf, tenant: Tenant, simulated: Simulated) -> Response:
    """For Prometheus: runs, their errors, tokens and cost; the router's decisions, fallbacks, latency,
    confidence, novelty and the checkpoint's age; and the longest time that this process's event loop was
    held."""
    parts = (
        await state.run_metrics.exposition(state.engine, tenant),
        await state.router_metrics.exposition(state.engine, tenant, simulated=simulated),
        state.loop_watch.exposition(),
    )
    return Response("".join(parts), media_type=prometheus.MEDIA_TYPE)
