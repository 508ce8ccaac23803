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
from tasks.execution import check_execution
from tasks.run import Run, last_execution, load_run, open_run
from tasks.shards import GroupError, WaitingError, groups_of_shards, synthesize_shards
from tasks.stage import is_transient, piece_name
from tasks.stages import synthesize

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
        check_execution(Processes(devices=(99,)))
    if importlib.util.find_spec("prefect_ray") is None:
        with pytest.raises(InputError, match=r"pip install 'dfnas\[ray\]'"):
            check_execution(Ray())


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


def test_a_group_is_tried_again_if_one_of_its_failures_may_pass():
    lasting = GroupError({"a": ValueError("bug"), "b": WaitingError()})
    passing = GroupError({**lasting.outcomes, "c": TimeoutError(110, "timed out")})
    assert is_transient(None, None, Failed(data=passing))
    assert not is_transient(None, None, Failed(data=lasting))
    assert str(lasting).startswith("a: ValueError: bug; b: waits for its round before")
    assert pickle.loads(pickle.dumps(lasting)).outcomes.keys() == lasting.outcomes.keys()
