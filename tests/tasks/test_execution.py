"""Where shards run is no part of what is computed."""

import contextlib
import importlib.util
import pickle
from pathlib import Path
from unittest import mock

import pytest
from prefect.states import Failed

from flows.config_file import read_config
from nas_core.errors import InputError
from nas_core.execution import Dask, Local, Processes, Ray
from storage.integrity import verify_run
from storage.manifests import read_manifest
from tasks.execution import check_execution, conducting, placing, submit, visible_device
from tasks.grid import search_points
from tasks.run import Run, last_execution, load_run, open_run
from tasks.shards import GroupError, WaitingError, groups_of_shards, synthesize_shards
from tasks.stage import is_transient, piece_name
from tasks.stages import search_point, synthesize
from tests.tasks.conftest import TINY

PROJECT = Path(__file__).parents[2]
PROCESSES = Processes(workers=4, threads=1)


def test_a_run_goes_on_with_another_engine_and_repair_takes_the_last_one(damageable: Run):
    """Neither the config's digest nor any key changes."""
    moved = damageable.config.model_copy(update={"execution": PROCESSES})
    config = damageable.layout.config.read_bytes()
    run = open_run(moved, damageable.directory)
    assert damageable.layout.config.read_bytes() == config
    assert synthesize.key(run, [], {}) == synthesize.key(damageable, [], {})
    assert last_execution(damageable.layout) == load_run(damageable.layout.root).config.execution == PROCESSES
    assert verify_run(damageable.layout, lambda *_: None).faults == ()


def test_a_name_alone_stands_for_the_engines_defaults():
    config = read_config(PROJECT / "configs" / "digits.yaml", ["execution=processes"])
    assert config.execution == Processes()
    assert read_config(PROJECT / "configs" / "digits.yaml").execution == Local()


def test_workers_divide_the_cores_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 10)
    assert Processes(workers=3).shard_threads() == 3
    assert Processes(workers=20).shard_threads() == 1
    assert Processes(workers=3, threads=2).shard_threads() == 2
    assert Local().shard_threads() is None


def test_workers_of_one_device_share_its_memory():
    assert Local().shards_at_once() == 1
    assert Processes(workers=5).shards_at_once() == 5
    assert Processes(workers=5, devices=(0, 1)).shards_at_once() == 3
    assert Dask(workers=5).shards_at_once() == 5
    assert Dask(address="tcp://host:8786").shards_at_once() == 1
    assert Ray(gpus=0.5).shards_at_once() == 2


def test_what_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"execution\.devices: there is no CUDA device 99 here"):
        check_execution(Processes(devices=(99,)), "cuda")
    if importlib.util.find_spec("prefect_ray") is None:
        with pytest.raises(InputError, match=r"pip install 'dfnas\[ray\]'"):
            check_execution(Ray(), "auto")


@pytest.mark.parametrize("device", ["cpu", "cuda:1", "mps"])
def test_devices_of_processes_leave_no_choice_of_another_one(device: str):
    """A process that sees one CUDA device has no `cuda:1`, and on the CPU it has no use for any."""
    with pytest.raises(InputError, match=f"device = {device} another one: leave either out"):
        check_execution(Processes(devices=(0,)), device)


def test_devices_are_counted_among_those_that_the_scheduler_gave(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_device(1) == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert [visible_device(number) for number in (0, 1)] == ["2", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937,MIG-73b0f2a6")
    assert [visible_device(number) for number in (0, 1)] == ["GPU-8932f937", "MIG-73b0f2a6"]


def test_groups_are_as_small_as_the_number_of_tasks_allows():
    assert groups_of_shards(shards=5, most_tasks=2) == [range(3), range(3, 5)]
    assert groups_of_shards(shards=5, most_tasks=5) == [range(s, s + 1) for s in range(5)]
    assert len(groups_of_shards(shards=20_000, most_tasks=2000)) == 2000


def test_groups_that_are_done_are_no_tasks_again(damageable: Run):
    """Of four shard-rounds in two groups, one is missing: its group alone is submitted."""
    first = read_manifest(damageable.layout.manifest("noise"))
    pieces = [piece_name("synthesis", {"round": r, "shard": s}) for r in range(2) for s in range(2)]
    manifests = {piece: read_manifest(damageable.layout.manifest(piece)) for piece in pieces}
    damageable.layout.manifest(pieces[-1]).unlink()
    run = damageable.model_copy(
        update={"config": damageable.config.model_copy(update={"execution": Local(most_tasks=3)})}
    )
    runner = mock.Mock()
    runner.submit.return_value.result.return_value = {pieces[1]: manifests[pieces[1]], pieces[3]: manifests[pieces[3]]}
    with mock.patch("tasks.shards.placing", return_value=contextlib.nullcontext(runner)):
        assert synthesize_shards(run, first) == list(manifests.values())
    (call,) = runner.submit.call_args_list
    assert call.args[1]["shards"] == range(1, 2)


def test_a_failed_point_of_a_grid_leaves_none_at_work(finished: Run):
    """All others are waited for, wherever they run, before the failure ends the flow."""
    grid = "search.strategy={name: r-darts-l2, grid: [{weight_decay: 1.0e-4}, {weight_decay: 5.0}]}"
    config = read_config(PROJECT / "configs" / "digits.yaml", (*TINY, grid))
    failed, works, dataset = mock.Mock(), mock.Mock(), mock.Mock()
    failed.result.side_effect = ZeroDivisionError("the first")
    with (
        mock.patch("tasks.grid.placing", return_value=contextlib.nullcontext()),
        mock.patch.object(type(search_point), "submit", side_effect=[failed, works]),
        pytest.raises(ZeroDivisionError, match="the first"),
    ):
        search_points(finished.model_copy(update={"config": config}), dataset, [])
    works.result.assert_called_once()


def test_no_process_is_started_for_what_is_done_and_shards_share_the_one_that_is(tmp_path: Path):
    task, runner = mock.Mock(), mock.Mock()
    made = mock.patch("tasks.execution._processes", return_value=runner)
    with made as start, conducting(PROCESSES, tmp_path / "log"):
        submit(task, {"number": 1}, done=lambda number: number == 1)
        task.submit.assert_called_once_with(number=1)
        start.assert_not_called()
        submit(task, {"number": 2}, done=lambda number: number == 1)
        runner.submit.assert_called_once_with(task, {"number": 2})
        with placing(PROCESSES, tmp_path / "log") as placed:
            assert placed is runner
        start.assert_called_once()


def test_processes_with_a_device_each_take_shards_only(tmp_path: Path):
    """A process that sees one device cannot say whether the others are there."""
    execution, log = Processes(workers=2, devices=(0, 1)), tmp_path / "log"
    made = mock.patch("tasks.execution._processes", side_effect=lambda *_: mock.Mock())
    with made as start, conducting(execution, log):
        submit(mock.Mock(), {})
        with placing(execution, log):
            pass
    assert [call.args[0] for call in start.call_args_list] == [Processes(workers=1), execution]


def test_a_group_is_tried_again_if_one_of_its_failures_may_pass():
    lasting = GroupError({"a": ValueError("bug"), "b": WaitingError()})
    passing = GroupError({**lasting.outcomes, "c": TimeoutError(110, "timed out")})
    assert is_transient(None, None, Failed(data=passing))
    assert not is_transient(None, None, Failed(data=lasting))
    assert str(lasting).startswith("a: ValueError: bug; b: waits for its round before")
    assert pickle.loads(pickle.dumps(lasting)).outcomes.keys() == lasting.outcomes.keys()
