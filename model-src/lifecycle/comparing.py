"""A new version beside the one that it would replace, on the rows that were held out for the new one."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from contract.errors import Refused
from contract.manifest import Manifest
from contract.uri import VERSION_URI
from contract.version import expected
from lifecycle import evaluating
from lifecycle.model import Model
from lifecycle.settings import Evaluate, Problem
from lifecycle.training import PREDICTION, PROBABILITY
from serving import model as serving
from serving.model import Model as Served
from serving.settings import Wanted
from storage import Unavailable


@dataclass(frozen=True)
class Comparison:
    metric: str
    old_version: str
    new_version: str
    old: float
    new: float
    gain: float
    """How much better the new one is, in the metric's unit; negative if it is worse."""
    low: float
    high: float
    """Of the gain's confidence interval."""
    rows: int
    evaluation_set_digest: str
    same_evaluation_set: bool
    """Whether the old version was held out the same rows; if not, it may have learned from some of them."""


def served(address: str) -> Served:
    """The ONNX model of a version, as its own manifest describes it."""
    # A release names the folder of what its app serves, one below the version's.
    version = re.sub(r"^(s3://[^/]+/models/[^/]+/[^/]+)/[^/]+/?$", r"\1", address).rstrip("/")
    if version.startswith("s3://") and not re.fullmatch(VERSION_URI, f"{version}/"):
        raise Refused(f"--with {address}: not a folder, and not s3://BUCKET/models/MODEL/VERSION/")
    try:
        return serving.load(Wanted(f"{version}/onnx", expected(None, os.environ)))
    except Unavailable as error:
        raise Refused(f"{error}; is the network there, and AWS_ENDPOINT_URL_S3 right?") from None
    except Refused as refused:
        # The service gets the address by its environment.
        raise Refused(*(line.replace("MODEL_URI", "--with") for line in refused.lines)) from None


def compare(
    old: Served, new: Served, rows: pd.DataFrame, model: Model, problem: Problem, params: Evaluate
) -> Comparison:
    """Both are asked for every row. Resamples are drawn in pairs, so that what is hard for both cancels out."""
    refuse_incompatible(old.manifest, new.manifest)
    metric = problem.metric
    answered = [_answered(served, rows, model) for served in (old, new)]
    random = np.random.default_rng(params.seed)
    gains = []
    for _ in range(params.resamples):
        drawn = random.integers(len(rows), size=len(rows))
        before, after = (evaluating.measure(one.iloc[drawn], model)[metric.name] for one in answered)
        gains.append(metric.gain(before, after))
    before, after = (evaluating.measure(one, model)[metric.name] for one in answered)
    outside = (1 - params.confidence) / 2 * 100
    low, high = np.percentile(gains, [outside, 100 - outside])
    return Comparison(
        metric=metric.name,
        old_version=old.manifest.version,
        new_version=new.manifest.version,
        old=round(before, 6),
        new=round(after, 6),
        gain=round(metric.gain(before, after), 6),
        low=round(float(low), 6),
        high=round(float(high), 6),
        rows=len(rows),
        evaluation_set_digest=new.manifest.evaluation_set_digest,
        same_evaluation_set=old.manifest.evaluation_set_digest == new.manifest.evaluation_set_digest,
    )


def refuse_incompatible(old: Manifest, new: Manifest) -> None:
    """Raises Refused when who calls the old version could not call the new one."""
    if old.model != new.model:
        raise Refused(f"{new.model} {new.version}: not the same model as {old.model} {old.version}")
    before, after = old.signature, new.signature
    if before.names != after.names:
        raise Refused(
            f"signature.inputs: {new.version} takes {', '.join(after.names)}, but {old.version}"
            f" takes {', '.join(before.names)}: its callers would be answered wrongly;"
            " deploy it as an app of its own"
        )
    if narrowed := [a.name for b, a in zip(before.inputs, after.inputs, strict=True) if b.nullable and not a.nullable]:
        raise Refused(
            f"signature.inputs: {new.version} needs {', '.join(narrowed)}, which callers of {old.version} may leave"
            " out; deploy it as an app of its own"
        )
    if before.outputs != after.outputs:
        raise Refused(
            f"signature.outputs: {new.version} answers {_words(new)}, but {old.version} answers {_words(old)};"
            " deploy it as an app of its own"
        )


def refuse_worse(found: Comparison, problem: Problem) -> None:
    if found.gain < -problem.metric.tolerance:
        raise Refused(
            f"{found.metric}: {found.new_version} has {found.new:g} on {found.rows} held-out rows,"
            f" {found.old_version} has {found.old:g}: worse by {-found.gain:g}, and {problem.metric.tolerance:g} is"
            " allowed (problem.yaml: metric.tolerance)"
        )


def table(found: Comparison) -> str:
    """Markdown."""
    lines = [f"| {name.replace('_', ' ')} | {value} |" for name, value in asdict(found).items()]
    return "\n".join(["| | |", "| --- | --- |", *lines]) + "\n"


def _words(described: Manifest) -> str:
    return ", ".join(described.signature.labels) or str(described.signature.quantity)


def _answered(served: Served, rows: pd.DataFrame, model: Model) -> pd.DataFrame:
    found = served.predict(rows[model.features].to_numpy(dtype=np.float32))
    answers = [one for one in found if one]
    if len(answers) < len(found):
        raise Refused(
            f"{served.manifest.version}: has no finite answer for {len(found) - len(answers)} of {len(found)} held-out"
            " rows; train another"
        )
    columns: dict[str, Any] = {PREDICTION: [one.answer for one in answers]}
    for name in served.labels:
        columns[f"{PROBABILITY}{name}"] = [(one.probabilities or {})[name] for one in answers]
    return pd.concat([rows.reset_index(drop=True), pd.DataFrame(columns)], axis=1)
