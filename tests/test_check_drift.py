from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import BUCKET, IMAGE, ROOT, S3, Checkout, Version, make_checkout, package, write_release

from gitops.releases.release import Release, Target

from contract.manifest import signature_of

INPUTS = ["sepal_length", "sepal_width"]
LABELS = ["setosa", "versicolor"]


def flower(row: int, wider: float = 0.0) -> tuple[list[float], str]:
    """Made by rule: 4.0 to 4.9 by 2.0 to 2.8, each as often as the others."""
    return [4.0 + row % 10 / 10, round(2.0 + row % 9 / 10 + wider, 1)], LABELS[row % 2]


@pytest.fixture(scope="module")
def kept(whole_template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, Version]:
    """A clone whose dev runs a version with a reference in both apps, and the version, which is in no bucket yet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*INPUTS, "prediction", "target"])
    for row in range(150):
        values, label = flower(row)
        writer.writerow([*values, label, label])
    checkout = make_checkout(whole_template, tmp_path_factory.mktemp("monitored"))
    made = package(
        checkout.root.parent / "artifacts",
        signature=signature_of([(name, False) for name in INPUTS], LABELS),
        more={"reference/reference.csv": text.getvalue()},
    )
    write_release(checkout.root, Target("lily-sklearn", "dev"), made, "sklearn")
    write_release(checkout.root, Target("lily-api", "dev"), made, "onnx", IMAGE)
    checkout.commit("Release in dev")
    return checkout, made


@pytest.fixture
def monitored(kept: tuple[Checkout, Version], s3: S3) -> Iterator[tuple[Checkout, Version]]:
    """For each test as if it were new, whatever it commits."""
    checkout, made = kept
    start = checkout.git("rev-parse", "HEAD")
    checkout.git("clean", "-fdqx")
    # The packages are those of this checkout; a clone of a user has its own.
    (checkout.root / "model-src/.venv").symlink_to(ROOT / "model-src/.venv")
    assert s3.upload(made) == made.uri
    yield checkout, made
    checkout.git("reset", "-q", "--hard", start)


def log(s3: S3, version: Version, wider: float = 0.0, rows: int = 200) -> None:
    time = datetime.now(UTC) - timedelta(minutes=5)
    lines = []
    for row in range(rows):
        values, label = flower(row, wider)
        lines.append(
            {
                "schema": 1, "id": "a" * 32, "row": row, "time": time.isoformat(), "model": "lily",
                "version": version.version, "features": dict(zip(INPUTS, values, strict=True)), "prediction": label,
                "probabilities": None,
            }
        )  # fmt: skip
    key = f"requests/dev/lily/{version.version}/{time:%Y-%m-%d/%H%M%S}-host-0.jsonl"
    s3.client.put_object(Bucket=BUCKET, Key=key, Body="".join(f"{json.dumps(line)}\n" for line in lines).encode())


def test_what_an_endpoint_captures_is_judged_as_well(monitored: tuple[Checkout, Version], s3: S3) -> None:
    checkout, version = monitored
    time, uri = datetime.now(UTC) - timedelta(minutes=5), f"s3://{BUCKET}/requests/dev/captured"
    endpoint_of(checkout, version, uri)
    lines = [captured(flower(row), version, time) for row in range(200)]
    key = f"requests/dev/captured/ml-dev-lily-endpoint/serving/{time:%Y/%m/%d/%H/%M}-00-000-one.jsonl"
    s3.client.put_object(Bucket=BUCKET, Key=key, Body="".join(f"{json.dumps(line)}\n" for line in lines).encode())

    done = checkout.run("check_drift", "--app", "lily-endpoint", "--env", "dev", "--json")

    assert done.code == 0, done.err
    [row] = json.loads(done.out)["apps"]
    assert (row["verdict"]["rows"], row["verdict"]["drifted"]) == (200, False)

    endpoint_of(checkout, version, uri, "Output")
    done = checkout.run("check_drift", "--app", "lily-endpoint", "--env", "dev")
    assert "no endpoint that captures requests and answers" in done.errors[0]


def captured(row: tuple[list[float], str], version: Version, time: datetime) -> dict[str, Any]:
    values, label = row
    given = json.dumps({"features": values}), json.dumps({"prediction": label, "model_version": version.version})
    names = ("endpointInput", "endpointOutput")
    parts = {
        name: {"observedContentType": "application/json", "mode": name[8:].upper(), "data": data, "encoding": "JSON"}
        for name, data in zip(names, given, strict=True)
    }
    event = {"eventId": str(uuid.uuid4()), "inferenceTime": f"{time:%Y-%m-%dT%H:%M:%SZ}"}
    return {"captureData": parts, "eventMetadata": event, "eventVersion": "0"}


def endpoint_of(checkout: Checkout, version: Version, uri: str, mode: str = "InputAndOutput") -> None:
    """Commits, on a branch of this clone alone, an app in dev with an endpoint that captures there."""
    folder, api = "overlays/dev/lily-endpoint", "sagemaker.services.k8s.aws/v1alpha1"
    config, endpoint = (
        {"apiVersion": api, "kind": kind, "metadata": {"name": "lily-endpoint"}, "spec": spec}
        for kind, spec in [
            ("EndpointConfig", {"dataCaptureConfig": {
                "destinationS3URI": uri, "captureOptions": [{"captureMode": mode}]}}),
            ("Endpoint", {"endpointName": "ml-dev-lily-endpoint"}),
        ]
    )  # fmt: skip
    checkout.write("apps/lily-endpoint/kustomization.yaml", "resources: [objects.yaml]\n")
    checkout.write("apps/lily-endpoint/objects.yaml", f"{json.dumps(config)}\n---\n{json.dumps(endpoint)}\n")
    checkout.write(f"{folder}/kustomization.yaml", "resources: [../../../apps/lily-endpoint, release.yaml]\n")
    item = Release(
        "lily-endpoint", "dev", version.version, version.digest, "c0de" * 10, f"sha256:{'4' * 64}", "5" * 32,
        f"{version.uri}onnx/", IMAGE,
    )  # fmt: skip
    lineage = {
        "name": item.name, "version": item.version, "digest": item.digest, "code-commit": item.code_commit,
        "data-digest": item.data_digest, "mlflow-run": item.mlflow_run,
    }  # fmt: skip
    annotations = {f"model.mlops/{name}": value for name, value in lineage.items()}
    container = {"image": IMAGE, "environment": {"MODEL_URI": item.uri, "MODEL_DIGEST": item.digest}}
    model = {"apiVersion": api, "kind": "Model", "metadata": {"name": "lily-endpoint", "annotations": annotations}}
    checkout.write(f"{folder}/release.yaml", json.dumps(model | {"spec": {"primaryContainer": container}}))
    checkout.commit("An endpoint")


def test_what_an_app_is_asked_is_judged_by_its_running_version(monitored: tuple[Checkout, Version], s3: S3) -> None:
    checkout, version = monitored
    log(s3, version)

    done = checkout.run("check_drift", "--app", "lily-api", "--env", "dev")

    assert (done.code, done.err) == (0, "")
    out = checkout.root / "model-src/reports/drift/dev/lily-api"
    assert {file.name for file in out.iterdir()} == {"report.html", "drift.prom", "verdict.json"}
    verdict = json.loads((out / "verdict.json").read_text())
    assert (verdict["environment"], verdict["app"], verdict["version"]) == ("dev", "lily-api", version.version)
    assert verdict["digest"] == version.digest
    assert done.out.splitlines()[2].split() == ["lily-api", version.version, "200", "none", "-"]


def test_drift_is_told_and_asks_for_training(monitored: tuple[Checkout, Version], s3: S3, tmp_path: Path) -> None:
    """Of all apps of the environment; one of them has no log."""
    checkout, version = monitored
    log(s3, version, wider=0.9)

    done = checkout.run("check_drift", "--env", "dev", "--out", tmp_path / "drift", "--rows", "150", "--json")

    assert done.code == 1
    assert "lily-sklearn in dev writes no request log" in done.err
    first = done.errors[0]
    assert first.startswith(
        f"lily-api in dev: lily {version.version}: sepal_width: its values differ from the reference"
    )
    [told] = json.loads(done.out)["apps"]
    assert (told["app"], told["verdict"]["rows"], told["verdict"]["drifted_columns"]) == (
        "lily-api", 150, ["sepal_width"],
    )  # fmt: skip
    file = tmp_path / "drift/lily-api/verdict.json"
    asked = checkout.run("check_retrain", "--model", "lily", "--env", "dev", "--verdict", file)
    assert (asked.code, asked.out.splitlines()[0]) == (0, "retrain: false")
    assert f"- lily {version.version}: drift: not due: 1 of 3 columns until " in asked.out


def test_a_window_without_enough_rows_is_no_verdict_and_leaves_no_old_one(
    monitored: tuple[Checkout, Version], s3: S3
) -> None:
    checkout, version = monitored
    log(s3, version, rows=20)
    checkout.write(old := "model-src/reports/drift/dev/lily-api/verdict.json", "{}")

    done = checkout.run("check_drift", "--app", "lily-api", "--env", "dev", "--json")

    assert done.code == 1
    assert done.errors[0].startswith(f"lily-api in dev: --log s3://{BUCKET}/requests/dev/: 20 rows of lily ")
    assert json.loads(done.out)["apps"][0]["verdict"] is None
    assert not (checkout.root / old).exists()


def test_a_version_whose_reference_was_altered_is_not_judged_by_it(monitored: tuple[Checkout, Version], s3: S3) -> None:
    checkout, version = monitored
    log(s3, version)
    key = f"models/lily/{version.version}/reference/reference.csv"
    s3.client.put_object(Bucket=BUCKET, Key=key, Body=b"sepal_length,sepal_width,prediction,target\n")

    done = checkout.run("check_drift", "--app", "lily-api", "--env", "dev")

    assert done.code == 1
    assert "reference/reference.csv: size: 43 bytes, but manifest.json has " in done.errors[0]


def test_each_app_is_in_one_part(monitored: tuple[Checkout, Version], s3: S3) -> None:
    checkout, version = monitored
    log(s3, version, rows=20)  # too few for a verdict, which takes seconds and is judged above

    parts = [checkout.run("check_drift", "--env", "dev", "--part", f"{at}/3", "--json") for at in (1, 2, 3)]

    judged = [[row["app"] for row in json.loads(done.out)["apps"]] for done in parts]
    assert (judged, [done.code for done in parts]) == ([["lily-api"], [], []], [1, 0, 0])
    assert parts[0].errors[0].startswith("lily-api in dev: --log ")
    assert [done.err for done in parts[1:]] == ["lily-sklearn in dev writes no request log\n", ""]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--app", "lily-api", "--env", "prod"], "overlays/prod/lily-api/release.yaml: lily-api is not"),
        (["--app", "lily-sklearn", "--env", "dev"], "overlays/dev/lily-sklearn: no container with"),
        (["--app", "rose", "--env", "dev"], "--app rose: nothing of that name on cicd; there is lily-api"),
        (["--app", "lily-api", "--env", "qa"], "--env qa: nothing of that name on cicd; there is dev, staging, prod"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_named(monitored: tuple[Checkout, Version], args: list[str], said: str) -> None:
    done = monitored[0].run("check_drift", *args)

    assert (done.code, done.out) == (1, "")
    assert done.errors[0].startswith(said)


@pytest.mark.parametrize("wrong", [
    ["--window", "1y"], ["--rows", "0"], ["--rows", "9", "--window", "1h"], ["--part", "0/2"], ["--part", "3/2"],
    ["--part", "1"], ["--part", "1/2", "--app", "lily-api"],
])  # fmt: skip
def test_wrong_usage(plain: Checkout, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        plain.run("check_drift", "--env", "dev", *wrong)
    assert left.value.code == 2


def test_the_command_that_sets_the_monitoring_up_is_named(monitored: tuple[Checkout, Version]) -> None:
    """Where there is no environment, and where there is one that only trains."""
    checkout, _ = monitored
    environment = checkout.root / "model-src/.venv"
    environment.unlink()
    missing = checkout.run("check_drift", "--app", "lily-api", "--env", "dev")
    # An environment without Evidently.
    environment.symlink_to(ROOT / ".venv")

    lacking = checkout.run("check_drift", "--app", "lily-api", "--env", "dev")

    assert missing.code == lacking.code == 1
    assert missing.errors == lacking.errors
    assert "run `python scripts/setup.py monitor`" in missing.errors[0]


def test_the_named_command_names_a_lock_that_has_evidently() -> None:
    lock = (ROOT / "model-src/requirements-monitor.txt").read_text()

    assert "\nevidently==" in lock


def test_another_log_can_be_named_from_anywhere(monitored: tuple[Checkout, Version], s3: S3, tmp_path: Path) -> None:
    """As a process, with a local log named relative to where it is called, of an app that writes none itself. It is
    too short for a verdict, which is judged above."""
    checkout, version = monitored
    log(s3, version, rows=20)
    shutil.copytree(s3.files / "requests/dev", tmp_path / "here/log")

    done: Any = subprocess.run(
        [ROOT / ".venv/bin/python", ROOT / "scripts/check_drift.py", "--root", checkout.root, "--app", "lily-sklearn",
         "--env", "dev", "--log", "log", "--out", "drift"],
        cwd=tmp_path / "here", capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr.startswith(f"error: lily-sklearn in dev: --log {tmp_path / 'here/log'}: 20 rows of lily ")
    assert (tmp_path / "here/drift/lily-sklearn").is_dir()
