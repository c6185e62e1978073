"""The verdict on a window, for machines: verdict.json and Prometheus' text format."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from contract.verdict import FILE, Verdict
from storage.files import write_atomically

PROMETHEUS = "drift.prom"


def write(folder: Path, verdict: Verdict) -> None:
    """verdict.json is written last: where it is, everything is."""
    write_to_textfile(str(folder / PROMETHEUS), _registry(verdict))
    write_atomically(folder / FILE, f"{verdict.model_dump_json(by_alias=True, indent=2)}\n".encode())


def _registry(verdict: Verdict) -> CollectorRegistry:
    registry = CollectorRegistry()
    of = {
        name: value
        for name, value in verdict.model_dump(include={"environment", "app", "model", "version"}).items()
        if value is not None
    }

    def gauge(name: str, meaning: str, value: float, **labels: str) -> None:
        if name not in gauges:
            gauges[name] = Gauge(name, meaning, [*of, *labels], registry=registry)
        gauges[name].labels(**of, **labels).set(value)

    gauges: dict[str, Gauge] = {}
    gauge("model_drift", "Whether any check of the window found drift.", verdict.drifted)
    gauge("model_drift_window_rows", "Rows of the window.", verdict.rows)
    gauge("model_drift_window_end_seconds", "Time of the window's last row.", verdict.until.timestamp())
    gauge("model_drift_malformed_lines", "Lines of the log that could not be read.", verdict.malformed_lines)
    for check in verdict.checks:
        named = {"column": check.column, "of": check.of, "test": check.test}
        gauge("model_drift_p_value", "How often chance alone differs as much.", check.p_value, **named)
        gauge("model_drift_threshold", "At or below this p-value a check finds drift.", check.threshold, **named)
        gauge("model_drift_detected", "Whether the check found drift.", check.drifted, **named)
        gauge("model_drift_statistic", "The check's statistic.", check.statistic, **named)
    if verdict.quality:
        gauge("model_quality_rows", "Rows of the window whose truth is known.", verdict.quality.rows)
        for metric, measured in verdict.quality.metrics.items():
            gauge("model_quality", "Quality on the rows whose truth is known.", measured.current, metric=metric)
            gauge("model_quality_reference", "Quality on the reference.", measured.reference, metric=metric)
    return registry
