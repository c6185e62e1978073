"""The pipeline of one model, as a graph of components.

By default the search is one component, the stage `tune` itself, and the package has the digest that `dvc repro` gives
it. With `loop`, each family is searched by a component of its own, at the same time, and `choose` takes the best. That
is another search: Optuna's single study learns from all families where to look next, and these searches know only of
their own, with an equal share of the budget each. So it may choose other parameters, and the digest is another then.
"""

# Without `from __future__ import annotations`: the SDK reads annotations as objects.

from collections.abc import Callable
from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Model

from extras.pipelines import components
from lifecycle import model as models
from lifecycle import settings


class Outcome(NamedTuple):
    package: Model
    digest: str
    report: HTML


def build(name: str, image: str, *, loop: bool = False) -> Any:
    """The pipeline of the model `name`, whose components run in `image`, where nothing is installed later. Its
    parameters: `data`, the address of the raw data, and `mlflow`, that of the tracking server (empty: what
    MLFLOW_TRACKING_URI in the pods is, if set). Raises Refused when there is no such model."""
    model, files = models.load(name), models.Files(name)
    problem = settings.read(files.problem, settings.Problem)
    families = list(settings.read(files.params, settings.Params).families)

    def task(function: Callable[..., object], **inputs: Any) -> Any:
        make = dsl.component(function, base_image=image, packages_to_install=[], install_kfp_package=False)
        # Kubeflow knows a task by the names of its image and its inputs, not by their bytes: the data behind an address
        # may be new, and the code behind a tag.
        return make(model=name, **inputs).set_caching_options(False)

    def pipeline(data: str, mlflow: str = "") -> Outcome:
        imported = dsl.importer(artifact_uri=data, artifact_class=dsl.Dataset, reimport=True)
        validated = task(components.validate, data=imported.set_caching_options(False).output)
        prepared = task(components.prepare, **{name: validated.outputs[name] for name in ("raw", "validation")})
        train, evaluation = prepared.outputs["train"], prepared.outputs["evaluation"]
        if loop:
            with dsl.ParallelFor(families) as family:
                searched = task(components.search, family=family, train=train)
            collected = dsl.Collected(searched.outputs["candidates"])
            tuned = task(components.choose, mlflow=mlflow, candidates=collected).outputs["tuned"]
        else:
            tuned = task(components.tune, mlflow=mlflow, train=train).outputs["tuned"]
        trained = task(components.train, train=train, evaluation=evaluation, tuned=tuned)
        made = {name: trained.outputs[name] for name in ("fitted", "predictions")}
        evaluate = components.evaluate_classifier if model.kind == "classification" else components.evaluate
        evaluated = task(evaluate, **made).outputs["evaluated"]
        packaged = task(components.package, evaluated=evaluated, **made)
        reported = task(
            components.report,
            digest=packaged.outputs["Output"],
            validation=validated.outputs["validation"],
            evaluation=evaluation,
            tuned=tuned,
            predictions=made["predictions"],
            evaluated=evaluated,
        )
        return Outcome(packaged.outputs["package"], packaged.outputs["Output"], reported.outputs["page"])

    return dsl.pipeline(pipeline, name=f"{name}-lifecycle", description=problem.objective)
