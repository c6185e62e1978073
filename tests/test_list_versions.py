"""list_versions.py: what is in the bucket, where it runs, and whether it is still what it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import BUCKET, IMAGE, S3, Checkout, Version, package

LATER = "2026-03-04"


def key(version: Version, path: str) -> str:
    return version.uri.removeprefix(f"s3://{BUCKET}/") + path


@pytest.fixture
def two(version: Version, tmp_path: Path, s3: S3) -> tuple[Version, Version]:
    """Two versions in the bucket, the second with other metrics and from a later commit."""
    made = package(tmp_path / "probe", content="two")
    name = f"{LATER}-{made.version[11:]}"
    later = package(
        tmp_path / "two",
        content="two",
        version=name,
        metrics={"accuracy": 1, "macro_f1": 0.98765},
        code_commit="beef" * 10,
    )
    uri = s3.upload(later)
    return version, Version(later.folder, name, later.digest, uri, later.data)


# Listing


def test_every_version_is_a_row_with_metrics_lineage_and_where_it_runs(
    two: tuple[Version, Version], checkout: Checkout
) -> None:
    one, other = two
    for app, image in (("lily-api", ["--image", IMAGE]), ("lily-sklearn", [])):
        done = checkout.run("bump_model", "--app", app, "--env", "dev", "--model-uri", one.uri, *image, "--commit")
        assert done.code == 0, done.err

    done = checkout.run("list_versions", "--model", "lily")

    assert done.err == ""
    assert [line.split("  ") for line in _squeezed(done.out)] == [
        ["version", "accuracy >= 0.85", "macro_f1", "code", "data", "mlflow run", "runs in"],
        ["-"] * 7,
        [one.version, "0.9556", "0.9550", "c0dec0dec0de", "d" * 12, "f" * 12, "lily-api in dev; lily-sklearn in dev"],
        [other.version, "1.0000", "0.9877", "beefbeefbeef", "d" * 12, "f" * 12, "-"],
    ]


@pytest.mark.parametrize(
    ("problem", "header"),
    [
        ("metric: {name: rmse, at_most: 52}\n", ["version", "rmse <= 52", "mae", "bias", "code"]),
        ("metric: {name: r2, at_least: 0.4}\n", ["version", "r2 >= 0.4", "mae", "bias", "code"]),
        ("title: no gate\n", ["version", "mae", "bias", "rmse", "code"]),
        ("a: [\n", ["version", "mae", "bias", "rmse", "code"]),
    ],
)
def test_three_metrics_of_any_model_are_listed_and_the_gates_is_first(
    checkout: Checkout, tmp_path: Path, s3: S3, problem: str, header: list[str]
) -> None:
    checkout.write("model-src/models/prices/problem.yaml", problem)
    checkout.commit()
    bounds, rest = {"mae_low": 38, "mae_high": 44}, {"rmse": 50, "r2": -0.5}
    for number, metrics in enumerate((bounds | {"mae": 41.25}, {"mae": 40, "bias": 2e-5} | rest)):
        s3.upload(package(tmp_path / str(number), f"{number}", "prices", metrics=metrics))

    done = checkout.run("list_versions", "--model", "prices")

    head, _, *rows = [line.split("  ") for line in _squeezed(done.out)]
    assert head[: len(header)] == header
    found = sorted(tuple(row[head.index(name)] for name in head if name.split()[0] in ("mae", "bias")) for row in rows)
    assert found == [("40.0000", "2.00e-05"), ("41.2500", "-")]


def _squeezed(table: str) -> list[str]:
    """The lines of a table with two blanks between columns and one dash for a rule."""
    lines = []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
        lines.append("  ".join("-" if set(cell) == {"-"} else cell for cell in cells))
    return lines


def test_json_has_the_whole_manifests(two: tuple[Version, Version], checkout: Checkout) -> None:
    done = checkout.run("list_versions", "--model", "lily", "--json")

    assert json.loads(done.out) == [
        {"uri": version.uri, "runs_in": [], "withdrawn": None, "manifest": version.manifest} | version.data
        for version in two
    ]
    assert (done.code, done.err) == (0, "")


def test_only_versions_with_a_manifest_are_listed_and_stray_keys_do_not_matter(
    version: Version, checkout: Checkout, s3: S3
) -> None:
    stray = [
        f"models/lily/{LATER}-0123456789ab/onnx/model.onnx",
        "models/lily/notes/manifest.json",
        "models/lily/manifest.json",
        f"models/lily/{version.version}/onnx/manifest.json.sig",
        f"models/lily-2/{version.version}/manifest.json",
        f"models/lily/{LATER}-0123456789AB/manifest.json",
        f"models/lily/{version.version}/manifest.json.sig",
        f"models/lily/copy/models/lily/{version.version}/manifest.json",
    ]
    for name in stray:
        s3.client.put_object(Bucket=BUCKET, Key=name, Body=b"stray")

    done = checkout.run("list_versions", "--model", "lily", "--json")

    assert [row["uri"] for row in json.loads(done.out)] == [version.uri]
    assert (done.code, done.err) == (0, "")


def test_an_empty_bucket_is_said_to_be_empty(checkout: Checkout, s3: S3) -> None:
    table, as_json = (checkout.run("list_versions", "--model", "lily", *args) for args in ([], ["--json"]))

    assert (table.code, table.out) == (0, "")
    assert table.err == f"no version of lily in s3://{BUCKET}; upload_model.py adds one\n"
    assert (as_json.code, json.loads(as_json.out)) == (0, [])


@pytest.mark.parametrize("model", ["wine", "", "packing", "../lily", "lily/", "i.is"])
def test_an_unknown_model_is_refused(model: str, checkout: Checkout, version: Version) -> None:
    done = checkout.run("list_versions", "--model", model)

    assert done.errors == [
        f"--model {model!r}: no such model: model-src/ has diabetes, lily, and s3://{BUCKET} has no version of it"
    ]
    assert (done.code, done.out) == (1, "")


def test_a_model_whose_code_is_gone_is_listed_as_long_as_it_has_versions(
    checkout: Checkout, tmp_path: Path, s3: S3
) -> None:
    gone = package(tmp_path / "wine", model="wine")
    s3.upload(gone)

    done = checkout.run("list_versions", "--model", "wine", "--json")

    assert [row["uri"] for row in json.loads(done.out)] == [gone.uri]


def test_another_bucket_can_be_named(checkout: Checkout, s3: S3) -> None:
    done = checkout.run("list_versions", "--model", "lily", "--bucket", "s3://nowhere")

    assert done.errors == ["s3://nowhere: no such bucket; create it, or correct the name"]
    assert (done.code, done.out) == (1, "")


@pytest.mark.parametrize("bucket", ["", "mlops-prod", "s3://mlops-prod/models/lily"])
def test_a_malformed_bucket_is_refused(bucket: str, checkout: Checkout) -> None:
    done = checkout.run("list_versions", "--model", "lily", "--bucket", bucket)

    assert done.errors == [
        f"--bucket {bucket!r}: write it as s3://BUCKET; the place in the bucket follows from the model"
    ]
    assert (done.code, done.out) == (1, "")


def test_where_versions_run_is_taken_from_the_deployed_branch_whatever_is_checked_out(
    version: Version, checkout: Checkout
) -> None:
    args = ("--app", "lily-sklearn", "--env", "dev", "--model-uri", version.uri, "--push")
    assert checkout.run("bump_model", *args).code == 0
    checkout.git("checkout", "-q", "main")
    checkout.git("branch", "-q", "-D", "cicd")

    done = checkout.run("list_versions", "--model", "lily", "--json")

    assert [row["runs_in"] for row in json.loads(done.out)] == [["lily-sklearn in dev"]]


def test_a_clone_without_the_deployed_branch_is_told_how_to_get_it(checkout: Checkout, version: Version) -> None:
    checkout.git("checkout", "-q", "-b", "main", "origin/main")
    checkout.git("branch", "-q", "-D", "cicd")
    checkout.git("update-ref", "-d", "refs/remotes/origin/cicd")

    done = checkout.run("list_versions", "--model", "lily")

    assert done.errors == [
        "branch cicd: not in this clone; fetch it with `git fetch origin cicd`, or start it with `make init`"
    ]
    assert (done.code, done.out) == (1, "")


# Verifying


def test_verification_says_how_much_was_verified(two: tuple[Version, Version], checkout: Checkout) -> None:
    done = checkout.run("list_versions", "--model", "lily", "--verify")

    assert (done.code, done.err) == (0, "2 versions verified, every stored byte as in its manifest\n")
    assert two[0].version in done.out


def test_verification_finds_what_was_altered_removed_and_added_and_still_lists(
    two: tuple[Version, Version], checkout: Checkout, s3: S3
) -> None:
    one, other = two
    s3.client.put_object(Bucket=BUCKET, Key=key(one, "onnx/model.onnx"), Body=b"")
    s3.client.delete_object(Bucket=BUCKET, Key=key(one, "sklearn/model.joblib"))
    s3.client.put_object(Bucket=BUCKET, Key=key(other, "sklearn/model.pkl"), Body=b"foreign")
    file = s3.files / key(other, "onnx/model.onnx")
    file.write_bytes(b"0" + file.read_bytes()[1:])
    was = one.data["files"][0]

    done = checkout.run("list_versions", "--model", "lily", "--verify", "--json")

    assert [row["uri"] for row in json.loads(done.out)] == [one.uri, other.uri]
    assert done.code == 1
    assert done.errors == [
        f"{one.uri}onnx/model.onnx: size: 0 bytes, the manifest has {was['size']};"
        " versions are never overwritten: find out who wrote that object, do not release it",
        f"{one.uri}sklearn/model.joblib: missing; the version is incomplete, do not release it",
        f"{other.uri}onnx/model.onnx: the stored bytes do not match the checksum they were stored with;"
        " the object is damaged, do not release it",
        f"{other.uri}sklearn/model.pkl: not in the manifest; remove the object, a model server might load it",
    ]
    assert len(done.err.splitlines()) == len(done.errors)


def test_without_verification_no_file_is_read(version: Version, checkout: Checkout, s3: S3) -> None:
    s3.client.delete_object(Bucket=BUCKET, Key=key(version, "onnx/model.onnx"))

    assert checkout.run("list_versions", "--model", "lily").code == 0


def test_a_version_with_a_wrong_manifest_is_reported_and_the_others_are_listed(
    two: tuple[Version, Version], checkout: Checkout, s3: S3
) -> None:
    one, other = two
    s3.client.put_object(Bucket=BUCKET, Key=key(one, "manifest.json"), Body=json.dumps(other.data).encode())

    done = checkout.run("list_versions", "--model", "lily", "--json")

    assert [row["uri"] for row in json.loads(done.out)] == [other.uri]
    assert done.errors == [f"{one.uri}manifest.json: names lily/{other.version}, not lily/{one.version}"]
    assert done.code == 1


def test_when_no_version_can_be_read_the_bucket_is_not_called_empty(
    version: Version, checkout: Checkout, s3: S3
) -> None:
    s3.client.put_object(Bucket=BUCKET, Key=key(version, "manifest.json"), Body=b"[]")

    done = checkout.run("list_versions", "--model", "lily")

    assert done.err == f"error: {version.uri}manifest.json: Input should be an object, not []\n"
    assert (done.code, done.out) == (1, "")


@pytest.mark.parametrize("metrics", [{}, {"loss": 0.1}, {"accuracy": 10**30}])
def test_any_metrics_can_be_listed(metrics: dict[str, float], checkout: Checkout, tmp_path: Path, s3: S3) -> None:
    made = package(tmp_path / "made", metrics=metrics)
    s3.upload(made)

    done = checkout.run("list_versions", "--model", "lily")

    assert done.out.splitlines()[2].startswith(made.version)
