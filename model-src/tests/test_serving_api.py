from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import SAMPLE, Repository, wanted
from fastapi.testclient import TestClient

from contract import manifest
from contract.errors import Refused
from contract.manifest import Manifest
from packing import labels
from serving import model
from serving.app import create_app
from serving.request_log import RequestLog, open_sink
from serving.state import State


@pytest.fixture(scope="module")
def state(artifacts: Path) -> State:
    described = manifest.parse((artifacts / "manifest.json").read_bytes(), "manifest.json")
    state = State()
    state.model = model.load(wanted(artifacts / "onnx", described.digest))
    return state


@pytest.fixture
def client(state: State) -> Iterator[TestClient]:
    with TestClient(create_app(state)) as client:
        yield client


def version(state: State) -> str:
    assert state.model
    return state.model.manifest.version


def test_one_row(client: TestClient, state: State) -> None:
    answer = client.post("/predict", json={"features": SAMPLE})

    assert answer.status_code == 200
    assert answer.json() == {
        "prediction": "setosa",
        "probabilities": {"setosa": 1.0, "versicolor": 0.0, "virginica": 0.0},
        "model_version": version(state),
    }


def test_a_batch_is_answered_in_order(client: TestClient, state: State) -> None:
    answer = client.post("/predict", json={"features": [[6.3, 3.3, 6, 2.5], SAMPLE]}).json()

    assert [one["prediction"] for one in answer["predictions"]] == ["virginica", "setosa"]
    assert answer["predictions"][1] == {
        name: value
        for name, value in client.post("/predict", json={"features": SAMPLE}).json().items()
        if name != "model_version"
    }
    assert answer["model_version"] == version(state)


def test_the_service_answers_as_scikit_learn_does(client: TestClient, artifacts: Path) -> None:
    """Over HTTP, in its batches, on rows that packing has not seen."""
    import joblib

    pipeline = joblib.load(artifacts / "sklearn/model.joblib")
    rows = np.random.default_rng(99).uniform(0.1, 8, (1000, 4)).round(2)
    probabilities = pipeline.predict_proba(rows)

    answer = client.post("/predict", json={"features": rows.tolist()}).json()["predictions"]

    assert [one["prediction"] for one in answer] == pipeline.classes_[labels.choose(probabilities)].tolist()
    np.testing.assert_allclose([list(one["probabilities"].values()) for one in answer], probabilities, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "where", "said"),
    [
        ('{"features": [5.3, 3.5, 1.4]}', ["features"], "3 numbers, but the model takes 4: sepal_length, sepal_width,"),
        ('{"features": [1, 2, 3, 4, 5]}', ["features"], "5 numbers, but the model takes 4"),
        ('{"features": []}', ["features"], "0 numbers, but the model takes 4"),
        ('{"features": [[1, 2, 3, 4], [1]]}', ["features", 1], "1 numbers, but the model takes 4"),
        ('{"features": [[1, 2, 3, 4], 5]}', ["features", 1], "Input should be a valid array"),
        ('{"features": [1, [2], 3, 4]}', ["features", 1], "Input should be a valid number"),
        ('{"features": [NaN, 1, 1, 1]}', ["features", 0], "Input should be a finite number"),
        ('{"features": [[1, 1, 1, -Infinity]]}', ["features", 0, 3], "Input should be a finite number"),
        ('{"features": [1e39, 1, 1, 1]}', ["features", 0], "Input should be less than or equal to 3402823"),
        ('{"features": ["1", 1, 1, 1]}', ["features", 0], "Input should be a valid number"),
        ('{"features": [true, 1, 1, 1]}', ["features", 0], "Input should be a valid number"),
        ('{"features": [null, 1, 1, 1]}', ["features", 0], "null, but the model needs a number for sepal_length"),
        ('{"features": null}', ["features"], "Input should be a valid array"),
        ("{}", ["features"], "Field required"),
        ('{"features": [1, 2, 3, 4], "x": 1}', ["x"], "Extra inputs are not permitted"),
        ("[]", [], "Input should be an object"),
        ("", [], "Invalid JSON: EOF"),
        ("\xff", [], "Invalid JSON: "),
        ("[" * 5000, [], "Invalid JSON: recursion limit exceeded"),
    ],
)
def test_a_wrong_request_is_told_where_it_is_wrong(client: TestClient, body: str, where: list[Any], said: str) -> None:
    answer = client.post("/predict", content=body.encode("latin-1"))

    assert answer.status_code == 422
    (fault,) = answer.json()["detail"]
    assert fault["loc"] == ["body", *where]
    assert fault["msg"].startswith(said)


def test_a_batch_has_a_largest_size(client: TestClient) -> None:
    assert client.post("/predict", json={"features": [SAMPLE] * 1000}).status_code == 200

    answer = client.post("/predict", json={"features": [SAMPLE] * 1001})

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["msg"] == "List should have at most 1000 items after validation, not 1001"


def test_a_body_has_a_largest_size(client: TestClient) -> None:
    answer = client.post("/predict", content=b" " * (1 << 20) + json.dumps({"features": SAMPLE}).encode())

    assert answer.status_code == 413
    assert answer.json() == {"detail": "the body has more than 1048576 bytes; send smaller batches"}


def test_an_answer_repeats_at_most_ten_faults_and_nothing_that_was_sent(client: TestClient) -> None:
    answer = client.post("/predict", json={"features": [["secret"] * 4] * 20})

    assert len(answer.json()["detail"]) == 10
    assert "secret" not in answer.text


def test_an_unready_service_says_why() -> None:
    with TestClient(create_app(State())) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert client.get("/readyz").json() == {"status": "not ready", "reason": "loading the model"}
        answer = client.post("/predict", json={"features": SAMPLE})
        assert (answer.status_code, answer.json()) == (503, {"detail": "loading the model"})
        assert "model_info" not in client.get("/metrics").text


def test_a_ready_service_says_what_it_serves(client: TestClient, state: State) -> None:
    assert state.model
    described = state.model.manifest

    assert client.get("/readyz").json() == {
        "status": "ready", "model": "lily", "version": described.version, "digest": described.digest,
    }  # fmt: skip


def test_a_stopping_service_is_unready_and_still_answers(state: State) -> None:
    stopping = State()
    stopping.model = state.model
    stopping.stop()
    with TestClient(create_app(stopping)) as client:
        assert client.get("/readyz").json() == {"status": "not ready", "reason": "stopping"}
        assert client.post("/predict", json={"features": SAMPLE}).status_code == 200


def test_the_metrics_count_by_route_status_and_label(client: TestClient, state: State) -> None:
    client.post("/predict", json={"features": [SAMPLE, SAMPLE, [6.3, 3.3, 6, 2.5]]})
    client.post("/predict", json={})
    client.get("/secret/1")
    client.get("/secret/2")

    lines = client.get("/metrics").text.splitlines()

    for line in (
        'http_requests_total{route="/predict",status="200"} 1.0',
        'http_requests_total{route="/predict",status="422"} 1.0',
        'http_requests_total{route="other",status="404"} 2.0',
        'http_request_duration_seconds_count{route="/predict",status="200"} 1.0',
        'model_predictions_total{label="setosa"} 2.0',
        'model_predictions_total{label="virginica"} 1.0',
    ):
        assert line in lines
    (info,) = (line for line in lines if line.startswith("model_info{"))
    assert f'version="{version(state)}"' in info


def test_the_documentation_has_the_sample(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    body = described["requestBody"]["content"]["application/json"]

    assert body["example"] == {"features": SAMPLE}
    assert client.post("/predict", json=body["example"]).status_code == 200
    assert set(described["responses"]) == {"200", "413", "422", "503"}
    assert client.get("/docs").status_code == 200


# A regression, some of whose inputs may be missing

PATIENT = [59.0, 2.0, 32.1, 101.0, 157.0, 93.2, 38.0, 4.0, 4.8598, 87.0]


@pytest.fixture(scope="module")
def regression(trained_sugar: Repository) -> State:
    described = trained_sugar.manifest("sugar")
    state = State()
    state.model = model.load(wanted(trained_sugar.source / "artifacts/sugar/onnx", described.digest))
    return state


@pytest.fixture
def doctor(regression: State) -> Iterator[TestClient]:
    with TestClient(create_app(regression)) as client:
        yield client


def test_a_regression_answers_with_a_number(doctor: TestClient, regression: State) -> None:
    one = doctor.post("/predict", json={"features": PATIENT})
    batch = doctor.post("/predict", json={"features": [PATIENT, [*PATIENT[:2], 20.0, *PATIENT[3:]]]}).json()

    assert one.status_code == 200
    assert one.json().keys() == {"prediction", "model_version"}
    assert one.json()["model_version"] == version(regression)
    # The runtime adds a batch up in another order than a row.
    assert batch["predictions"][0] == {"prediction": pytest.approx(one.json()["prediction"], rel=1e-6)}
    # The thinner of two patients who are alike in all else.
    assert 100 < batch["predictions"][1]["prediction"] < batch["predictions"][0]["prediction"] < 300


def test_a_regression_answers_as_scikit_learn_does(doctor: TestClient, trained_sugar: Repository) -> None:
    """The rows of the reference, where cells are missing too: null in the request, NaN in scikit-learn."""
    import joblib

    pipeline = joblib.load(trained_sugar.source / "artifacts/sugar/sklearn/model.joblib")
    with (trained_sugar.source / "artifacts/sugar/reference/reference.csv").open() as table:
        rows = [[float(cell) if cell else None for cell in row[:-2]] for row in list(csv.reader(table))[1:]]
    assert any(None in row for row in rows)

    answer = doctor.post("/predict", json={"features": rows}).json()["predictions"]

    expected = pipeline.predict(np.array(rows, dtype=float))
    np.testing.assert_allclose([one["prediction"] for one in answer], expected, rtol=1e-5)


@pytest.mark.parametrize("position", range(10))
def test_null_is_allowed_only_where_a_value_may_be_missing(
    doctor: TestClient, regression: State, position: int
) -> None:
    assert regression.model
    column = regression.model.manifest.signature.inputs[position]
    row: list[float | None] = [*PATIENT]
    row[position] = None

    answer = doctor.post("/predict", json={"features": [PATIENT, row]})

    if column.nullable:
        assert answer.status_code == 200
        assert 25 < answer.json()["predictions"][1]["prediction"] < 346
    else:
        assert column.name in ("age", "sex")
        assert answer.status_code == 422
        (fault,) = answer.json()["detail"]
        assert fault["loc"] == ["body", "features", 1, position]
        assert fault["msg"] == f"null, but the model needs a number for {column.name}"


def test_the_metrics_of_a_regression_do_not_count_by_its_numbers(doctor: TestClient, regression: State) -> None:
    doctor.post("/predict", json={"features": [PATIENT, PATIENT]})

    lines = doctor.get("/metrics").text.splitlines()

    assert 'http_requests_total{route="/predict",status="200"} 1.0' in lines
    (info,) = (line for line in lines if line.startswith("model_info{"))
    assert f'version="{version(regression)}"' in info and 'model="sugar"' in info
    assert [line for line in lines if line.startswith("model_predictions_total{")] == [
        'model_predictions_total{label="regression"} 2.0'
    ]


# Answers that are none


def made(described: Manifest, *nodes: onnx.NodeProto, **constants: Any) -> model.Model:
    """A version whose model is these nodes, from `features` to its output."""
    make, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
    name, width = ("probabilities", 3) if described.kind == "classification" else ("value", 1)
    graph = make.make_graph(
        nodes,
        "made",
        [make.make_tensor_value_info("features", FLOAT, [None, len(described.signature.inputs)])],
        [make.make_tensor_value_info(name, FLOAT, [None, width])],
        [onnx.numpy_helper.from_array(np.array(value, dtype=np.float32), key) for key, value in constants.items()],
    )
    opset = [make.make_opsetid("", 17)]
    return model.Model(described, make.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def first_three(described: Manifest, added: list[float]) -> model.Model:
    """A classifier whose probabilities are the first three numbers of the row and what is added to them."""
    node = onnx.helper.make_node
    ends = {"start": [0], "end": [3], "axis": [1]}
    integers = [node("Constant", [], [k], value_ints=v) for k, v in ends.items()]
    cut = node("Slice", ["features", "start", "end", "axis"], ["cut"])
    return made(described, *integers, cut, node("Add", ["cut", "added"], ["probabilities"]), added=added)


@pytest.fixture(scope="module")
def classifier(state: State) -> Iterator[TestClient]:
    assert state.model
    strange = State()
    strange.model = first_three(state.model.manifest, [0.2, 0.3, 0.5])
    with TestClient(create_app(strange, None)) as client:
        yield client


@pytest.mark.parametrize(
    "row",
    [
        pytest.param([3.4e38, 1, 1, 1], id="huge"),
        pytest.param([0.1, 0, 0, 0], id="more than one in sum"),
        pytest.param([-0.2, 0, 0, 0], id="less than one in sum"),
        pytest.param([1, -1, 0, 0], id="one below zero"),
    ],
)
def test_what_is_no_distribution_is_no_answer(classifier: TestClient, row: list[float]) -> None:
    one = classifier.post("/predict", json={"features": row})
    several = classifier.post("/predict", json={"features": [[0, 0, 0, 0], row, [0.1, -0.1, 0, 9]]})

    assert [one.status_code, several.status_code] == [422, 422]
    assert one.json()["detail"] == [{"loc": ["body", "features"], "msg": model.NO_ANSWER}]
    assert several.json()["detail"] == [{"loc": ["body", "features", 1], "msg": model.NO_ANSWER}]
    assert classifier.post("/predict", json={"features": [0, 0, 0, 0]}).json()["prediction"] == "virginica"


def test_a_row_without_an_answer_is_counted_and_not_logged(regression: State, tmp_path: Path) -> None:
    assert regression.model
    described = regression.model.manifest
    columns = len(described.signature.inputs)
    strange = State()
    weights = [[1e38]] * columns
    strange.model = made(described, onnx.helper.make_node("MatMul", ["features", "w"], ["value"]), w=weights)
    log = RequestLog(open_sink(f"{tmp_path}/log/"), 1, print)

    with TestClient(create_app(strange, log)) as client:
        asked = [client.post("/predict", json={"features": [[x] + [0] * (columns - 1)]}) for x in (1, 1000, -1000, 2)]
        metrics = client.get("/metrics").text
    log.close()

    assert [answer.status_code for answer in asked] == [200, 422, 422, 200]
    assert "model_unanswered_rows_total 2.0" in metrics
    lines = [json.loads(line) for file in (tmp_path / "log").rglob("*.jsonl") for line in file.open()]
    assert [line["prediction"] for line in lines] == [1e38, 2e38]


@pytest.mark.parametrize("constant", [np.nan, np.inf, -np.inf])
def test_a_model_that_never_has_an_answer_is_refused(state: State, regression: State, constant: float) -> None:
    assert state.model and regression.model
    with pytest.raises(Refused, match=r"model.onnx: has no finite answer for any of 4 rows"):
        first_three(state.model.manifest, [constant] * 3)
    described = regression.model.manifest
    node = onnx.helper.make_node
    nodes = node("MatMul", ["features", "w"], ["sum"]), node("Add", ["sum", "c"], ["value"])
    with pytest.raises(Refused, match=r"model.onnx: has no finite answer for any of 4 rows"):
        made(described, *nodes, w=[[1.0]] * len(described.signature.inputs), c=[[constant]])
