"""The evaluation for people: Markdown, HTML with its plots in it, and the model card."""

from __future__ import annotations

import base64
import html as markup
import io
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from lifecycle.model import Model
from lifecycle.settings import Problem
from lifecycle.training import HELD_OUT, PREDICTION

Facts = Mapping[str, Any]
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}"
    "table{border-collapse:collapse;margin:1rem 0}th,td{border-bottom:1px solid #ddd;padding:.3rem .8rem;"
    "text-align:left}code{background:#f4f4f4;padding:.1rem .3rem}img{max-width:100%}"
)


def report(facts: Facts, problem: Problem, evaluated: Facts) -> str:
    """Markdown. `facts`: where the model comes from; `evaluated`: the content of evaluation.json."""
    metric = problem.metric
    parts = [
        f"# Evaluation of {facts['model']} {facts['version']}",
        f"{metric.name} is {evaluated['metrics'][metric.name]['value']:.4f} on {evaluated['held_out_rows']} held-out"
        f" rows; it has to be {metric.words}.",
        _table(["", ""], [[name.replace("_", " "), f"`{value}`"] for name, value in facts.items()]),
        "## Metrics",
        f"With intervals of {evaluated['confidence']:.0%} confidence.",
        _table(
            ["metric", "value", "from", "to"],
            [
                [name, *(f"{one[key]:.4f}" for key in ("value", "low", "high"))]
                for name, one in evaluated["metrics"].items()
            ],
        ),
    ]
    for title, first, rows in (("By label", "label", "per_class"), ("By part of the data", "part", "per_slice")):
        if measured := evaluated[rows]:
            columns = list(dict.fromkeys(column for one in measured.values() for column in one))
            parts += [
                f"## {title}",
                _table(
                    [first, *columns], [[name, *(_cell(one.get(c)) for c in columns)] for name, one in measured.items()]
                ),
            ]
    if "confusion" in evaluated:
        names = list(evaluated["per_class"])
        counts = {(one["actual"], one["predicted"]): one["rows"] for one in evaluated["confusion"]}
        parts += [
            "## Confusion matrix",
            _table(["true \\ predicted", *names], [[a, *(str(counts[a, b]) for b in names)] for a in names]),
        ]
    parts += [
        "## What the model looks at",
        "How much worse the metric gets when a column is shuffled.",
        _table(
            ["feature", problem.metric.name, "spread"],
            [[one["feature"], _cell(one["importance"]), _cell(one["spread"])] for one in evaluated["importance"]],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def model_card(facts: Facts, problem: Problem, evaluated: Facts, dictionary: str) -> str:
    """Markdown, after M. Mitchell et al., "Model cards for model reporting" (2019)."""
    metric = evaluated["metrics"][problem.metric.name]
    weakest = min(
        ((name, part) for name, part in evaluated["per_slice"].items() if problem.metric.name in part),
        key=lambda pair: problem.metric.gain(0, pair[1][problem.metric.name]),
        default=None,
    )
    parts = [
        f"# {problem.title}",
        f"Model `{facts['model']}`, version `{facts['version']}`, owned by {problem.owner}.",
        f"## What it is for\n\n{problem.objective}\n\nFor: {problem.users}\n\nNot for: {problem.out_of_scope}"
        + (f"\n\nAn example of what it is asked: {problem.example}" if problem.example else ""),
        "\n".join(["## What it has to keep to", "", *(f"- {line}" for line in problem.constraints)]),
        "## How well it does\n\n"
        f"{problem.metric.name} {metric['value']:.4f} (from {metric['low']:.4f} to {metric['high']:.4f}) on"
        f" {evaluated['held_out_rows']} held-out rows; accepted is {problem.metric.words}."
        + (f' It does worst on the part "{weakest[0]}": {weakest[1][problem.metric.name]:.4f}.' if weakest else ""),
        "## How it was made\n\n"
        + _table(["", ""], [[name.replace("_", " "), f"`{value}`"] for name, value in facts.items()]),
        # One level below the card's own headings.
        dictionary.strip().replace("# ", "## ", 1),
    ]
    return "\n\n".join(parts) + "\n"


def html(markdown: str, plots: Mapping[str, bytes]) -> str:
    """The Markdown as a page that needs no other file; `plots` are PNG images by title."""
    from markdown_it import MarkdownIt

    title = markup.escape(markdown.partition("\n")[0].lstrip("# "))
    images = "".join(
        f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{base64.b64encode(image).decode()}">'
        for name, image in ((markup.escape(name), image) for name, image in plots.items())
    )
    # CommonMark would pass HTML in the text on.
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body>{body}{images}</body></html>\n"
    )


def plots(model: Model, predictions: pd.DataFrame, evaluated: Facts) -> dict[str, bytes]:
    """PNG images by file name without its ending."""
    from matplotlib.figure import Figure

    found = {}

    def save(name: str, figure: Figure) -> None:
        written = io.BytesIO()
        figure.savefig(written, dpi=120, bbox_inches="tight", metadata={"Software": None})
        found[name] = written.getvalue()

    figure = Figure(figsize=(6, 0.4 * len(model.features) + 1.2))
    axes = figure.subplots()
    ranked = evaluated["importance"][::-1]
    axes.barh(
        [one["feature"] for one in ranked],
        [one["importance"] for one in ranked],
        xerr=[one["spread"] for one in ranked],
    )
    axes.set_xlabel("loss when the column is shuffled")
    save("feature_importance", figure)
    held_out = predictions[predictions[HELD_OUT]]
    figure = Figure(figsize=(4.5, 4.2))
    axes = figure.subplots()
    if model.kind == "classification":
        names = list(evaluated["per_class"])
        counts = [[one["rows"] for one in evaluated["confusion"] if one["actual"] == name] for name in names]
        axes.imshow(counts, cmap="Blues")
        axes.set_xticks(range(len(names)), names, rotation=20)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        for i, row in enumerate(counts):
            for j, count in enumerate(row):
                axes.text(
                    j,
                    i,
                    str(count),
                    ha="center",
                    va="center",
                    color="white" if count > max(row) / 2 and count > 3 else "black",
                )
        save("confusion_matrix", figure)
        figure = Figure(figsize=(4.5, 4.2))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#999", linewidth=1)
        points = evaluated["calibration"]
        axes.plot([one["probability"] for one in points], [one["share_true"] for one in points], marker="o")
        axes.set_xlabel("probability given")
        axes.set_ylabel("share that was true")
        save("calibration", figure)
    else:
        truth, said = held_out[model.target], held_out[PREDICTION]
        axes.scatter(truth, said, s=12)
        ends = [min(truth.min(), said.min()), max(truth.max(), said.max())]
        axes.plot(ends, ends, color="#999", linewidth=1)
        axes.set_xlabel(f"{model.target}, true")
        axes.set_ylabel(f"{model.target}, predicted")
        save("predicted_and_true", figure)
    return found


def _cell(value: Any) -> str:
    """Counts are whole numbers, measures are not, even when they are 1."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (header, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
