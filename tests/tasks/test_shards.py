"""The table of shards says of each what became of it."""

import pytest

from storage.manifests import Manifest
from tasks.shard_table import WaitingError, shard_row
from tasks.stages import commit_dataset, synthesize

MANIFEST = Manifest(
    piece="synthesis-round-001-shard-00002",
    key="k",
    digest="d",
    files={},
    figures={"images": 16, "loss": 0.25, "top1_drift": 0.125},
    seconds=12.34,
)


@pytest.mark.parametrize(("done_before", "word"), [(False, "done"), (True, "cached")])
def test_a_finished_shard_has_its_figures(done_before: bool, word: str):
    assert shard_row((1, 2), MANIFEST, done_before) == {
        "round": 1,
        "shard": 2,
        "state": word,
        "seconds": 12.3,
        "loss": 0.25,
        "agreement": "87.5%",
    }


def test_a_shard_without_a_result_failed_or_waits_for_one_that_did():
    assert shard_row((0, 3), OSError("full"), False)["state"] == "failed"
    assert shard_row((1, 3), WaitingError(), False)["state"] == "waits for an earlier round"


def test_task_runs_are_named_by_what_they_do():
    assert synthesize.title({"round": 2, "shard": 17}) == "synthesize round 2 shard 17"
    assert commit_dataset.title({}) == "commit dataset"
