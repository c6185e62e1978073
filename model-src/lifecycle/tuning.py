"""The search for a family and its parameters, by cross-validation on the training rows alone.

Optuna's tree-structured Parzen estimator proposes; each family is tried at least once. The metric is the problem's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import optuna
import pandas as pd
from sklearn.model_selection import BaseCrossValidator, KFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline

from contract.errors import Refused
from lifecycle.model import Files, Model
from lifecycle.settings import SMALLER_IS_BETTER, Metric, Params, Space, Span

SCORINGS = {
    "accuracy": "accuracy",
    "macro_f1": "f1_macro",
    "mae": "neg_mean_absolute_error",
    "rmse": "neg_root_mean_squared_error",
    "r2": "r2",
}


@dataclass(frozen=True)
class Candidate:
    family: str
    parameters: dict[str, Any]
    scores: list[float]
    """The metric on each fold."""

    @property
    def score(self) -> float:
        return math.fsum(self.scores) / len(self.scores)

    @property
    def spread(self) -> float:
        """The standard deviation over the folds."""
        return statistics.stdev(self.scores)


def folds(model: Model, count: int, seed: int) -> BaseCrossValidator:
    form = StratifiedKFold if model.kind == "classification" else KFold
    return form(count, shuffle=True, random_state=seed)


def search(
    train: pd.DataFrame, model: Model, params: Params, metric: Metric, seen: Callable[[int, Candidate], None]
) -> Iterator[Candidate]:
    """Every candidate, in the order of trial; `seen` is told of each. Raises Refused when one cannot be fitted."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sign = -1 if metric.name in SMALLER_IS_BETTER else 1
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=params.tune.seed))
    for family in params.families:
        study.enqueue_trial({"family": family})
    features, target = train[model.features].to_numpy(), train[model.target].to_numpy()
    cuts = folds(model, params.tune.folds, params.tune.seed)
    for number in range(params.tune.trials):
        trial = study.ask()
        family = trial.suggest_categorical("family", list(params.families))
        parameters = dict(_proposed(trial, family, params.families[family]))
        pipeline = build(model, family, parameters, params.train.seed)
        try:
            scores = sign * cross_val_score(
                pipeline, features, target, scoring=SCORINGS[metric.name], cv=cuts, error_score="raise"
            )
        except ValueError as error:
            said = " ".join(str(error).split())
            raise Refused(f"{Files(model.name).params}: families.{family}: {parameters}: {said}") from None
        candidate = Candidate(family, parameters, [round(float(score), 9) for score in scores])
        study.tell(trial, sign * candidate.score)
        seen(number, candidate)
        yield candidate


def build(model: Model, family: str, parameters: Mapping[str, Any], seed: int) -> Pipeline:
    """The pipeline of a family with its parameters, not fitted. Raises Refused when there is no such family, or when
    its estimator has no such parameter."""
    try:
        make = model.families[family]
    except KeyError:
        raise Refused(
            f"{Files(model.name).params}: families.{family}: no such family; there is {', '.join(model.families)}"
        ) from None
    pipeline = make(seed)
    known = pipeline[-1].get_params()
    if unknown := sorted(parameters.keys() - known.keys()):
        raise Refused(
            f"{Files(model.name).params}: families.{family}.{unknown[0]}: {type(pipeline[-1]).__name__} has no such"
            f" parameter; it has {', '.join(sorted(known))}"
        )
    return pipeline.set_params(**{f"model__{name}": value for name, value in parameters.items()})


def choose(candidates: list[Candidate], families: Iterable[str], metric: Metric) -> Candidate:
    """The best candidate of the first family that is as good as any: on the same folds, its mean distance from the
    best of all is within one standard error of that distance (the rule of L. Breiman et al., "Classification and
    Regression Trees", 1984, applied to pairs). The order of the families in params.yaml is an order of preference.
    """
    # The first of equals, so that a longer search does not change the answer for nothing.
    leaders = [
        max((one for one in candidates if one.family == family), key=lambda one: metric.gain(0, one.score))
        for family in families
        if any(one.family == family for one in candidates)
    ]
    winner = max(leaders, key=lambda one: metric.gain(0, one.score))

    def as_good(leader: Candidate) -> bool:
        behind = [metric.gain(mine, best) for mine, best in zip(leader.scores, winner.scores, strict=True)]
        return statistics.fmean(behind) <= statistics.stdev(behind) / math.sqrt(len(behind)) + 1e-9

    return next(leader for leader in leaders if leader is winner or as_good(leader))


def table(candidates: list[Candidate]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "trial": number,
                "family": one.family,
                "score": round(one.score, 6),
                "spread": round(one.spread, 6),
                **_flat(one),
            }
            for number, one in enumerate(candidates)
        ]
    )


def _flat(candidate: Candidate) -> dict[str, Any]:
    return {f"{candidate.family}.{name}": value for name, value in candidate.parameters.items()}


def record(candidate: Candidate, metric: Metric, trials: int) -> dict[str, Any]:
    """For tuned.json."""
    score = {"score": round(candidate.score, 9), "spread": round(candidate.spread, 9)}
    return {"metric": metric.name, "trials": trials, **asdict(candidate), **score}


def _proposed(trial: optuna.Trial, family: str, space: Space) -> Iterator[tuple[str, Any]]:
    for parameter, values in space.items():
        name = f"{family}.{parameter}"
        if isinstance(values, list):
            yield parameter, trial.suggest_categorical(name, values)
        elif not isinstance(values, Span):
            yield parameter, values
        elif isinstance(values.low, int) and isinstance(values.high, int):
            yield parameter, trial.suggest_int(name, values.low, values.high, log=values.log)
        else:
            yield parameter, trial.suggest_float(name, values.low, values.high, log=values.log)
