"""The stage that measures latency: its figures reach the results, and the times make nothing anew."""

from pathlib import Path

import pytest

from storage.files import read_json
from storage.manifests import read_manifest
from tasks.report import rewrite_report
from tasks.run import Run
from tasks.verification import forget_damaged


def test_latencies_stand_beside_the_other_costs(finished: Run):
    results = read_json(finished.layout.results)
    for network in ("teacher", "student"):
        assert {"macs", "params", "latency_ms", "batch_latency_ms"} <= results[network].keys()
        assert results[network]["latency_ms"] > 0
    assert results["latency"]["batch_size"] == 32
    assert results["latency"]["processor"]


@pytest.mark.parametrize("name", ["latency.json", "manifests/latency.json"])
def test_other_times_make_nothing_else_anew(damageable: Run, complete, name: str):
    layout = damageable.layout
    others = {path: path.stat().st_mtime_ns for path in _manifests(damageable) if path.stem != "latency"}
    digest = read_manifest(layout.manifest("latency")).digest
    (layout.root / name).write_text("{}")
    forget_damaged(layout)
    complete(damageable)
    assert read_manifest(layout.manifest("latency")).digest == digest
    assert read_json(layout.latency)["student"]["latency_ms"] > 0
    assert {path: path.stat().st_mtime_ns for path in others} == others


def test_a_run_from_before_there_were_latencies_can_be_reported(damageable: Run):
    assert "latency" in shown(damageable)
    damageable.layout.latency.unlink()
    damageable.layout.manifest("latency").unlink()
    results = rewrite_report(damageable)
    assert results["latency"] is None
    assert "latency_ms" not in results["student"]
    assert "latency" not in shown(damageable)


def shown(run: Run) -> str:
    """The report without the config at its end, whose settings have names with latency in them."""
    page, config, _ = run.layout.report.read_text().partition("<pre>")
    assert config
    return page


def _manifests(run: Run) -> list[Path]:
    return list(run.layout.manifest("*").parent.glob("*.json"))
