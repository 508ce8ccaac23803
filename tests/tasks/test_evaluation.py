"""The judgement of what a run has made."""

from pathlib import Path

from flows.config_file import read_config
from storage.files import read_json
from tasks.run import Run, open_run
from tests.tasks.conftest import PROJECT, TINY

TEACHER = (
    "teacher={name: checkpoint, factory: 'doubles:Particular', input_shape: [1, 8, 8], mean: [0.3], std: [0.4], "
    f"num_classes: 10, weights: {PROJECT / 'examples' / 'digits' / 'teacher.safetensors'}}}"
)


def test_a_run_ends_well_with_a_teacher_whose_code_looks_at_values(finished: Run, complete, tmp_path: Path):
    config = read_config(PROJECT / "configs" / "digits.yaml", (*TINY, TEACHER))
    run = open_run(config, str(tmp_path / "run"))
    complete(run)
    theirs, ours = (read_json(r.layout.results)["teacher"] for r in (finished, run))
    assert ours["macs"] == theirs["macs"] > 0
    assert ours["params"] == theirs["params"]
