"""`dfnas status`: what of a run is done."""

from pathlib import Path

from tasks import stages
from tasks.run import Run
from tasks.stage import Stage
from tasks.status import expected_pieces, progress_table


def test_every_stage_of_the_pipeline_has_its_line(finished: Run):
    every = [value for value in vars(stages).values() if isinstance(value, Stage)] + list(stages.TRAINING.values())
    config = finished.config.model_copy(update={"baselines": tuple(stages.TRAINING)})
    assert set(expected_pieces(finished.model_copy(update={"config": config}))) == {stage.name for stage in every}


def test_a_run_with_a_latency_table_has_a_piece_that_keeps_it(finished: Run, tmp_path: Path):
    search = finished.config.search.model_copy(update={"latency_table": tmp_path / "latency.json"})
    config = finished.config.model_copy(update={"search": search})
    assert "costs" not in progress_table(finished)
    assert "costs" in progress_table(finished.model_copy(update={"config": config}))
