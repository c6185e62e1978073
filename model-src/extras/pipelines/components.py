"""The components: each the source of one function, which Kubeflow runs in the image.

A function's whole text goes into the compiled pipeline, where neither this module nor its imports exist; so each one
imports `extras.pipelines.steps` from the image and does nothing else of its own. Its artifacts have the names of
`lifecycle.model.Files`.
"""

# Without `from __future__ import annotations`: the SDK reads annotations as objects.

from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output


def validate(
    model: str,
    data: Input[Dataset],
    raw: Output[Dataset],
    validation: Output[Artifact],
    dictionary: Output[Markdown],
) -> None:
    from extras.pipelines import steps

    # The data is handed on: what lies at its address later may be other data.
    steps.run(
        "validate",
        model,
        {"raw": data.path},
        {"raw": raw.path, "validation": validation.path, "dictionary": dictionary.path},
    )


def prepare(
    model: str,
    raw: Input[Dataset],
    validation: Input[Artifact],
    train: Output[Dataset],
    evaluation: Output[Dataset],
) -> None:
    from extras.pipelines import steps

    steps.run(
        "prepare",
        model,
        {"raw": raw.path, "validation": validation.path},
        {"train": train.path, "evaluation": evaluation.path},
    )


def tune(model: str, mlflow: str, train: Input[Dataset], tuned: Output[Artifact], trials: Output[Dataset]) -> None:
    from extras.pipelines import steps

    steps.run("tune", model, {"train": train.path}, {"tuned": tuned.path, "trials": trials.path}, mlflow)


def search(model: str, family: str, train: Input[Dataset], candidates: Output[Artifact]) -> None:
    from extras.pipelines import steps

    steps.search(model, family, train.path, candidates.path)


def choose(
    model: str,
    mlflow: str,
    candidates: Input[list[Artifact]],
    tuned: Output[Artifact],
    trials: Output[Dataset],
) -> None:
    from extras.pipelines import steps

    steps.choose(model, [one.path for one in candidates], tuned.path, trials.path, mlflow)


def train(
    model: str,
    train: Input[Dataset],
    evaluation: Input[Dataset],
    tuned: Input[Artifact],
    fitted: Output[Model],
    predictions: Output[Dataset],
) -> None:
    from extras.pipelines import steps

    steps.run(
        "train",
        model,
        {"train": train.path, "evaluation": evaluation.path, "tuned": tuned.path},
        {"fitted": fitted.path, "predictions": predictions.path},
    )


def evaluate(
    model: str,
    fitted: Input[Model],
    predictions: Input[Dataset],
    evaluated: Output[Artifact],
    metrics: Output[Metrics],
) -> None:
    from extras.pipelines import steps

    steps.run(
        "evaluate",
        model,
        {"fitted": fitted.path, "predictions": predictions.path},
        {"evaluated": evaluated.path, "metrics": metrics.path},
    )
    for name, value in steps.metrics(evaluated.path).items():
        metrics.log_metric(name, value)


def evaluate_classifier(
    model: str,
    fitted: Input[Model],
    predictions: Input[Dataset],
    evaluated: Output[Artifact],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
) -> None:
    from extras.pipelines import steps

    steps.run(
        "evaluate",
        model,
        {"fitted": fitted.path, "predictions": predictions.path},
        {"evaluated": evaluated.path, "metrics": metrics.path},
    )
    for name, value in steps.metrics(evaluated.path).items():
        metrics.log_metric(name, value)
    confusion.log_confusion_matrix(*steps.confusion(evaluated.path))


def package(
    model: str,
    fitted: Input[Model],
    predictions: Input[Dataset],
    evaluated: Input[Artifact],
    package: Output[Model],
) -> str:
    from extras.pipelines import steps

    steps.run(
        "package",
        model,
        {"fitted": fitted.path, "predictions": predictions.path, "evaluated": evaluated.path},
        {"package": package.path},
    )
    digest = steps.digest(package.path)
    package.metadata["digest"] = digest
    return digest


def report(
    model: str,
    digest: str,
    validation: Input[Artifact],
    evaluation: Input[Dataset],
    tuned: Input[Artifact],
    predictions: Input[Dataset],
    evaluated: Input[Artifact],
    page: Output[HTML],
    card: Output[Markdown],
) -> None:
    from extras.pipelines import steps

    steps.report(
        model,
        {
            "validation": validation.path,
            "evaluation": evaluation.path,
            "tuned": tuned.path,
            "predictions": predictions.path,
            "evaluated": evaluated.path,
        },
        digest,
        page.path,
        card.path,
    )
