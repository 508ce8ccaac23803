"""What the report adds to a finished run."""

from pathlib import Path
from unittest import mock

import pytest

from nas_core.config import TableConfig
from nas_core.errors import InputError
from nas_core.search_spaces.lookup import AccuracyTable
from storage.files import read_json
from storage.integrity import verify_run
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
