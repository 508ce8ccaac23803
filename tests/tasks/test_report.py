"""What the report adds to a finished run."""

from pathlib import Path
from unittest import mock

import pytest

from nas_core.config import TableConfig
from nas_core.errors import InputError
from nas_core.search_spaces.lookup import AccuracyTable
from storage.files import exclusive, read_json, write_json
from storage.integrity import verify_run
from storage.manifests import Provenance, digests_of_files, read_manifest
from tasks.building import preflight
from tasks.report import rewrite_report
from tasks.run import Run


def test_a_table_of_true_accuracies_shows_in_the_report(damageable: Run, tmp_path: Path):
    found = read_json(damageable.layout.search)["architecture"]
    table = tmp_path / "table.csv"
    table.write_text(f"arch,top1\n{found},91.5\n")
    evaluation = damageable.config.evaluation.model_copy(update={"table": TableConfig(path=table, column="top1")})
    config = damageable.config.model_copy(update={"evaluation": evaluation})
    with mock.patch.object(AccuracyTable, "read", wraps=AccuracyTable.read) as read:
        preflight(config)
        results = rewrite_report(damageable.model_copy(update={"config": config}))
    read.assert_called_once()
    assert results["search"]["true_accuracy"] == 91.5
    assert "True accuracy by epoch" in damageable.layout.report.read_text()
    assert verify_run(damageable.layout, lambda *_: None).faults == (), "the manifest vouches for the new report"
    table.write_text("arch,top1\nnothing,91.5\n")
    with pytest.raises(InputError, match="holds no architecture of nasbench201"):
        preflight(config)


def test_a_report_written_anew_keeps_the_versions_and_the_device_of_the_run(damageable: Run):
    """Whoever writes it may have another dfnas, and no such device."""
    layout = damageable.layout
    known = Provenance.read(layout.provenance)
    known.model_copy(update={"versions": known.versions | {"torch": "1.13.0"}}).write(layout.provenance)
    latency = read_json(layout.latency)
    write_json(layout.latency, latency | {"machine": latency["machine"] | {"device": "cuda:7"}})
    path = layout.manifest("latency")
    files = digests_of_files(layout.root, [layout.latency])
    read_manifest(path).model_copy(update={"files": files}).write(path)
    results = rewrite_report(damageable)
    assert results["versions"] == known.versions | {"torch": "1.13.0"}
    assert results["device"] == "cuda:7"
    assert "torch 1.13.0" in layout.report.read_text()


def test_a_run_that_works_in_the_directory_keeps_the_report_from_being_written(damageable: Run):
    before = damageable.layout.report.stat().st_mtime_ns
    with exclusive(damageable.layout.root), pytest.raises(InputError, match="another run is working in"):
        rewrite_report(damageable)
    assert damageable.layout.report.stat().st_mtime_ns == before
