"""The HTTP interface."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import requests
from serving.model import NO_ANSWER, Model, Prediction
from serving.request_log import RequestLog
from serving.state import State

BODY_LIMIT = 1 << 20
"""Bytes of a request's body."""
FAULTS_SHOWN = 10
GONE = 499
"""The status by which requests are counted whose caller left before the answer; nginx's, which has one for it."""

SAGEMAKER = frozenset({"/ping", "/invocations"})
"""What SageMaker asks a container for."""


class PredictionOut(BaseModel):
    prediction: str | float
    probabilities: dict[str, float] | None = None
    """Of a classifier."""


class PredictResponse(PredictionOut):
    model_version: str


class BatchResponse(BaseModel):
    predictions: list[PredictionOut]
    model_version: str


class Metrics:
    """One registry an app, so that two of them can live in one process."""

    def __init__(self, state: State, log: RequestLog | None) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        by = ("route", "status")
        self.requests = Counter("http_requests", "Requests answered.", by, registry=self.registry)
        self.seconds = Histogram(
            "http_request_duration_seconds", "Time from a request's arrival to the end of its answer.", by,
            registry=self.registry, buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
        )  # fmt: skip
        self.predictions = Counter("model_predictions", "Rows predicted.", ("label",), registry=self.registry)
        self.unanswered = Counter(
            "model_unanswered_rows", "Rows that the model gave no finite answer for.", registry=self.registry
        )
        for counter in (log.written, log.dropped, log.faults) if log else ():
            self.registry.register(counter)
        self._info: Info | None = None
        self._state = state

    def exposition(self) -> bytes:
        # Registered late, because without a model it would show one without a name.
        if self._state.model and not self._info:
            self._info = Info("model", "The model version that is served.", registry=self.registry)
            self._info.info(_identity(self._state.model))
        return generate_latest(self.registry)


class _Measure:
    """ASGI middleware that counts and times every request by route and status, and that sends callers elsewhere from
    when the service stops."""

    def __init__(self, app: ASGIApp, state: State, metrics: Metrics, routes: frozenset[str]) -> None:
        self.app, self.state, self.metrics, self.routes = app, state, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.state.stopping.is_set():
                    # Or the caller would send its next request just as the connection is closed.
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            # Any path may be asked for; one time series for each would fill the memory.
            route = scope["path"] if scope["path"] in self.routes else "other"
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route, status).observe(time.perf_counter() - began)


def create_app(state: State, log: RequestLog | None = None, *, sagemaker: bool = False) -> FastAPI:
    """The application that answers with the model in `state` as soon as there is one, and logs what it answers.

    With `sagemaker`, it also answers what SageMaker asks of a container: GET /ping and POST /invocations.
    """
    app = FastAPI(title="Model service", description="Predictions from one verified model version.", version="1")
    metrics = Metrics(state, log)
    routes = frozenset({"/predict", "/healthz", "/readyz", "/metrics"}) | (SAGEMAKER if sagemaker else set())
    app.add_middleware(_Measure, state=state, metrics=metrics, routes=routes)

    @app.post(
        "/predict",
        summary="Predict one row or a batch of rows",
        response_model=PredictResponse | BatchResponse,
        responses={413: {"description": "The body is too large"}, 422: {"description": "The request is wrong"},
                   503: {"description": "No model is loaded yet"}},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": requests.PredictRequest.model_json_schema(),
                        "example": {"features": [5.3, 3.5, 1.4, 0.2]},
                    }
                },
            }
        },
    )  # fmt: skip
    # The body is read by hand: FastAPI would read one of any size, and only then check it.
    async def predict(request: Request) -> Response:
        return await respond(request, requests.features)

    async def respond(request: Request, parse: Callable[[bytes], list[Any]]) -> Response:
        # Not state.ready: a service that stops still answers what reaches it.
        model = state.model
        if model is None:
            return JSONResponse({"detail": state.reason}, 503)
        try:
            body = await _read(request)
        except ClientDisconnect:
            return Response(status_code=GONE)
        if body is None:
            return JSONResponse({"detail": f"the body has more than {BODY_LIMIT} bytes; send smaller batches"}, 413)
        try:
            asked = parse(body)
        except ValidationError as error:
            return _wrong(*[(fault["loc"], fault["msg"]) for fault in error.errors(include_url=False)])
        except ValueError as error:
            return _wrong(((), str(error)))
        single = not (asked and isinstance(asked[0], list))
        rows: list[Any] = [asked] if single else asked
        if faults := list(_misfits(model, rows, single)):
            return _wrong(*faults)
        given = model.predict(np.array(rows, dtype=np.float32))
        predictions = [prediction for prediction in given if prediction]
        if len(predictions) < len(given):
            metrics.unanswered.inc(len(given) - len(predictions))
            # Not 503: the same row would get the same, from every replica.
            places = [("features",) if single else ("features", row) for row, each in enumerate(given) if not each]
            return _wrong(*[(place, NO_ANSWER) for place in places])
        for prediction in predictions:
            # The numbers of a regression would each be a time series of its own.
            metrics.predictions.labels(prediction.answer if model.labels else model.kind).inc()
        answers = [_answer(prediction) for prediction in predictions]
        # Never the caller's own: an id that comes twice would give a label to two rows.
        request_id = uuid.uuid4().hex
        if log:
            log.add(request_id, model.manifest, rows, answers)
        version = {"model_version": model.manifest.version}
        return JSONResponse(
            answers[0] | version if single else {"predictions": answers} | version,
            headers={"X-Request-Id": request_id},
        )

    if sagemaker:

        @app.get("/ping", summary="Whether SageMaker may send requests")
        async def ping() -> Response:
            return Response(status_code=200 if state.ready else 503)

        @app.post("/invocations", summary="Predict as /predict does, or each line of CSV")
        async def invocations(request: Request) -> Response:
            content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
            if content_type not in requests.PARSERS:
                known = ", ".join(requests.PARSERS)
                return JSONResponse({"detail": f"Content-Type {content_type!r:.80}: not one of {known}"}, 415)
            return await respond(request, requests.PARSERS[content_type])

    @app.get("/healthz", summary="Whether the process runs")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether the service can predict, and with which version")
    async def readyz() -> JSONResponse:
        model = state.ready
        if model is None:
            return JSONResponse({"status": "not ready", "reason": state.reason}, 503)
        return JSONResponse({"status": "ready"} | _identity(model))

    @app.get("/metrics", summary="Metrics in Prometheus' text format")
    async def exposition() -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return app


async def _read(request: Request) -> bytes | None:
    """The body, or None as soon as it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            return None
    return bytes(body)


def _misfits(model: Model, rows: list[list[float | None]], single: bool) -> Iterator[tuple[tuple[int | str, ...], str]]:
    columns = model.manifest.signature.inputs
    for index, row in enumerate(rows):
        place: tuple[int | str, ...] = ("features",) if single else ("features", index)
        if len(row) != len(columns):
            names = ", ".join(column.name for column in columns)
            yield place, f"{len(row)} numbers, but the model takes {len(columns)}: {names}"
            continue
        for position, (column, value) in enumerate(zip(columns, row, strict=True)):
            if value is None and not column.nullable:
                yield (*place, position), f"null, but the model needs a number for {column.name}"


def _wrong(*faults: tuple[tuple[int | str, ...], str]) -> JSONResponse:
    """422 in FastAPI's form. What was sent is not repeated: it may be large, or not for the log."""
    detail = [
        # The tag of the union is ours, not a part of the request.
        {"loc": ["body", *(part for part in loc if part not in ("row", "rows"))], "msg": said}
        for loc, said in faults[:FAULTS_SHOWN]
    ]
    return JSONResponse({"detail": detail}, 422)


def _answer(prediction: Prediction) -> dict[str, Any]:
    answer: dict[str, Any] = {"prediction": prediction.answer}
    return answer if prediction.probabilities is None else answer | {"probabilities": prediction.probabilities}


def _identity(model: Model) -> dict[str, str]:
    described = model.manifest
    return {"model": described.model, "version": described.version, "digest": described.digest}
