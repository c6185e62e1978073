"""Weights that lie beside a model, and not in the bytes that its digest covers, are never read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from packing import runtime
from packing.sagemaker import inference

FEATURES = helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 1])
VALUE = helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, 1])
MUL = helper.make_node("Mul", ["features", "w"], ["value"])


def outside(location: str) -> Any:
    """A weight of one number, in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def initializer(weight: Any) -> Any:
    return helper.make_graph([MUL], "model", [FEATURES], [VALUE], [weight])


def constant(weight: Any) -> Any:
    given = helper.make_node("Constant", [], ["w"], value=weight)
    return helper.make_graph([given, MUL], "model", [FEATURES], [VALUE])


def sparse(weight: Any) -> Any:
    indices = helper.make_tensor("indices", TensorProto.INT64, [1], [0])
    given = onnx.SparseTensorProto(values=weight, indices=indices, dims=[1])
    return helper.make_graph([MUL], "model", [FEATURES], [VALUE], sparse_initializer=[given])


def within(graph: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same in a branch."""

    def build(weight: Any) -> Any:
        branch = graph(weight)
        branch.ClearField("input")
        always = helper.make_tensor("always", TensorProto.BOOL, [], [True])
        node = helper.make_node("If", ["always"], ["value"], then_branch=branch, else_branch=branch)
        return helper.make_graph([node], "model", [FEATURES], [VALUE], [always])

    return build


PLACES = {
    "initializer": initializer, "constant": constant, "sparse": sparse, "branch": within(initializer),
    "constant-of-a-branch": within(constant), "sparse-of-a-branch": within(sparse),
}  # fmt: skip


def written(folder: Path, graph: Any) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "signature.json").write_text("{}")
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["weights.bin", "./weights.bin", "../weights.bin", "{folder}/weights.bin"])
def test_data_of_another_file_is_not_read(
    place: str, location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "version"
    folder.mkdir()
    for beside in (tmp_path, folder):
        (beside / "weights.bin").write_bytes(np.float32(2).tobytes())
    monkeypatch.chdir(folder)
    content = written(folder, PLACES[place](outside(location.format(folder=folder))))

    for load in (lambda: runtime.session(content), lambda: inference.model_fn(str(folder))):
        with pytest.raises(Exception, match=r"External data|external|Data of TensorProto"):
            load()


@pytest.mark.parametrize("place", PLACES)
def test_data_of_the_model_itself_is(place: str, tmp_path: Path) -> None:
    content = written(tmp_path, PLACES[place](helper.make_tensor("w", TensorProto.FLOAT, [1], [2])))

    session, _ = inference.model_fn(str(tmp_path))
    for each in (runtime.session(content), session):
        assert each.run(["value"], {"features": np.array([[3]], np.float32)})[0].tolist() == [[6]]


def test_the_folder_that_is_looked_in_cannot_be_made() -> None:
    with pytest.raises(NotADirectoryError):
        Path(runtime.NOWHERE).mkdir(parents=True)
