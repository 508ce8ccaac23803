"""The whole pipeline through a real Prefect API."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas_core.search_spaces.nasbench201 import NasBench201
from storage.files import exclusive
from tasks.data import load_images
from tasks.retrain import load_model
from tasks.run import load_run

PROJECT = Path(__file__).parents[2]


def documented() -> dict[str, str]:
    """Keys of docs/results-json.md with their rows; ".b" after "a.c" stands for "a.b"."""
    rows = {}
    for row in (PROJECT / "docs" / "results-json.md").read_text().splitlines():
        if row.startswith("| `"):
            section = ""
            for name in re.findall(r"`([^`]+)`", row.split("|")[1]):
                section = section if name.startswith(".") else name.rpartition(".")[0]
                rows[section + name if name.startswith(".") else name] = row
    return rows


def results_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "results.json").read_text())


def flat(results: dict[str, Any]) -> dict[str, Any]:
    """Values by keys such as "teacher.top1"; empty or missing sections stand for themselves."""
    inner = {name: value for name, value in results.items() if isinstance(value, dict)}
    values = {f"{name}.{key}": value for name, section in inner.items() for key, value in section.items()}
    return values | {name: value for name, value in results.items() if name not in inner}


def modification_times(directory: Path, pattern: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((directory / "manifests").glob(pattern))}


def test_results_have_the_documented_keys_and_no_others(finished_run: Path):
    """Where something may be null or missing, its row says so; this run has all but fine-tuning."""
    results, rows = results_of(finished_run), documented()
    values = flat(results)
    as_a_whole = {key.removesuffix(".*") for key in rows} & results.keys()
    one_by_one = {key for key in rows if key.removesuffix(".*") not in as_a_whole}
    assert one_by_one - values.keys() == {"timings.finetuning", "digests.finetuned"}
    assert {key for key in values if key.partition(".")[0] not in as_a_whole} <= one_by_one
    assert all("null" in rows[key] for key in rows.keys() & values.keys() if values[key] is None)


def test_results_have_plausible_values(finished_run: Path):
    results = results_of(finished_run)
    assert (results["synthesis"]["images"], results["synthesis"]["rounds"]) == (64, 2)
    assert results["quality"]["teacher_top1"] > 0.5
    assert results["teacher"]["top1"] > 0.98
    assert 0 <= results["student"]["agreement"] <= 1
    assert results["student"]["macs"] <= 60_000
    assert results["evaluation"] == {"images": 500, "source": "npz held_out.npz"}


def test_the_front_holds_every_rated_architecture_that_none_beats(finished_run: Path):
    """Compared with all others one by one: none is as cheap and as good, and one of the two more so."""
    found = json.loads((finished_run / "search" / "outcome.json").read_text())
    points = {(rated["macs"], rated["score"]) for rated in found["candidates"]}
    unbeaten = {
        (macs, score)
        for macs, score in points
        if not any(m <= macs and s >= score and (m, s) != (macs, score) for m, s in points)
    }
    assert [(rated["macs"], rated["score"]) for rated in found["front"]] == sorted(unbeaten)
    assert all(rated in found["candidates"] for rated in found["front"])
    assert found["front"][-1]["architecture"] == found["architecture"]
    assert len(points) > len(unbeaten)


def test_the_student_loads_with_one_call_and_is_the_found_architecture(finished_run: Path):
    network, description = load_model(finished_run)
    results = results_of(finished_run)
    assert description["architecture"] == results["search"]["architecture"]
    assert sum(p.numel() for p in network.parameters()) == results["student"]["params"]
    space = NasBench201(channels=4, cells=1, input_shape=(1, 8, 8), num_classes=10)
    assert space.macs(space.choices(space.parse(description["architecture"]))) == results["student"]["macs"]


def test_the_headline_figures_are_the_students_own_and_of_images_that_it_has_not_seen(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
):
    """Counted anew: on the real digits against their labels, on the held-out windows against the teacher."""
    monkeypatch.chdir(PROJECT)
    network, about = load_model(finished_run)
    mean, std = about["mean"][0], about["std"][0]
    student = results_of(finished_run)["student"]
    with np.load("examples/digits/held_out.npz") as arrays:
        digits, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    run = load_run(finished_run)
    images, split = load_images(run)
    windows = images.canvases[split.held_out][:, :, 1:9, 1:9]
    assert len(windows) == 6

    with torch.no_grad():
        answers = network((digits / 255 - mean) / std).argmax(1)
        assert student["top1"] == (answers == labels).sum().item() / 500
        normalised = (windows / 255 - mean) / std
        agreed = network(normalised).argmax(1) == run.teacher().module(normalised).argmax(1)
        assert student["agreement"] == agreed.sum().item() / len(windows)


def test_the_report_is_one_page_without_outside_links(finished_run: Path):
    page = (finished_run / "report.html").read_text()
    assert results_of(finished_run)["search"]["architecture"] in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_the_terminal_shows_the_result_and_no_log(finished_run: Path):
    text = (finished_run / "terminal.txt").read_text()
    assert "top-1 on real images" in text
    assert "report.html" in text
    assert "INFO" not in text
    assert "%|" not in text  # no progress bars where there is no terminal


def test_the_log_says_in_which_arithmetic_the_teacher_ran(finished_run: Path):
    said = (
        r"nas_core\.synthesis\.statistics: teacher runs on \S+ in torch\.(bfloat16|float32), channels-last, uncompiled"
    )
    assert re.search(said, (finished_run / "dfnas.log").read_text())


def test_prefect_knows_every_task_of_the_run(finished_run: Path, prefect_server):
    ours = {"flow_runs": {"id": {"any_": [prefect_server.flow_run(finished_run)]}}}
    tasks = prefect_server.ask("task_runs/filter", ours | {"limit": 200})
    names = {task["name"] for task in tasks}
    shards = {f"synthesize round {r} shard {s}" for r in range(2) for s in range(2)}
    others = {"initialise noise", "commit dataset", "search architecture", "retrain architecture", "evaluate student"}
    others |= {"train baseline random", "measure latency"}
    assert names == shards | others | {"check config", "take stock", "write report"}
    artifacts = prefect_server.ask("artifacts/filter", ours | {"artifacts": {"key": {"any_": ["dfnas-tiny"]}}})
    assert results_of(finished_run)["search"]["architecture"] in artifacts[0]["data"]


def test_prefect_shows_how_good_the_images_are(prefect_server, finished_run: Path):
    """Every data-free measure of results.json that has a value, and every BatchNorm layer."""
    ours = {"flow_runs": {"id": {"any_": [prefect_server.flow_run(finished_run)]}}}
    found = prefect_server.ask("artifacts/filter", ours | {"artifacts": {"key": {"any_": ["dfnas-tiny-quality"]}}})
    measures = {row["measure"]: row["value"] for row in json.loads(found[0]["data"])}
    quality = results_of(finished_run)["quality"]
    assert measures["teacher's top-1 on the classes asked for"] == f"{100 * quality['teacher_top1']:.1f}%"
    layers = [measure for measure in measures if measure.startswith("relative BatchNorm distance, layer ")]
    recorded = json.loads((finished_run / "records" / "dataset.json").read_text())
    assert len(layers) == len(recorded["batch_norm_distances"])
    assert len(measures) - len(layers) == sum(value is not None for value in quality.values())


@pytest.fixture
def copy_of_run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(finished_run, tmp_path / "run")


def test_running_again_computes_nothing(dfnas, tiny_config: Path, copy_of_run: Path):
    before = modification_times(copy_of_run, "*.json")
    result = dfnas("run", tiny_config, "--run-dir", copy_of_run)
    assert result.returncode == 0, result.stderr
    assert modification_times(copy_of_run, "*.json") == before


def test_repair_makes_a_damaged_shard_anew_with_the_same_bytes_and_nothing_else(dfnas, copy_of_run: Path):
    before, digests = modification_times(copy_of_run, "*.json"), results_of(copy_of_run)["digests"]
    path = copy_of_run / "dataset.zarr" / "canvases" / "c" / "3" / "0" / "0" / "0"  # round 1, shard 1
    sound = path.read_bytes()
    path.write_bytes(sound[:50] + bytes([sound[50] ^ 1]) + sound[51:])
    assert dfnas("verify", copy_of_run).returncode == 1
    result = dfnas("repair", copy_of_run)
    assert result.returncode == 0, result.stderr
    assert path.read_bytes() == sound
    assert results_of(copy_of_run)["digests"] == digests
    after = modification_times(copy_of_run, "*.json")
    assert {name for name in before if before[name] != after[name]} == {"synthesis-round-001-shard-00001.json"}


def test_a_directory_of_another_config_is_refused_and_the_difference_named(
    dfnas, tiny_config: Path, finished_run: Path
):
    result = dfnas("run", tiny_config, "--run-dir", finished_run, "--set", "search.strategy.epochs=4")
    assert result.returncode == 2
    assert "search.strategy.epochs: 3 there, 4 here" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_model_file_is_made_anew(dfnas, tiny_config: Path, copy_of_run: Path):
    weights = copy_of_run / "model" / "weights.safetensors"
    sound = weights.read_bytes()
    weights.unlink()
    result = dfnas("run", tiny_config, "--run-dir", copy_of_run)
    assert result.returncode == 0, result.stderr
    assert weights.read_bytes() == sound


@pytest.mark.slow
def test_a_grid_of_darts_goes_through_the_same_pipeline_two_pieces_at_once(dfnas, tiny_config: Path, tmp_path: Path):
    grid = "search.strategy={name: r-darts-l2, order: first, epochs: 2, grid: [{}, {weight_decay: 0.1}]}"
    settings = ("--set", grid, "--set", "evaluation.data=null", "--set", "execution={name: processes, threads: 1}")
    result = dfnas("run", tiny_config, "--run-dir", tmp_path / "run", *settings)
    assert result.returncode == 0, result.stderr
    results = results_of(tmp_path / "run")
    assert results["search"]["strategy"] == "r-darts-l2"
    assert {path.name for path in tmp_path.glob("run/manifests/grid*")} == {f"grid-point-00{n}.json" for n in range(2)}
    assert results["student"]["macs"] <= 60_000
    assert results["student"]["top1"] is None
    assert results["evaluation"] == {"images": 0, "source": None}


def test_status_counts_what_is_done(dfnas, finished_run: Path):
    result = dfnas("status", finished_run)
    assert result.returncode == 0
    lines = {line.split()[0]: line.split() for line in result.stdout.splitlines()[2:]}
    assert lines["synthesis"][1] == "4/4"
    assert lines["report"][1] == "1/1"


def test_report_can_be_written_again(dfnas, copy_of_run: Path):
    (copy_of_run / "report.html").unlink()
    result = dfnas("report", copy_of_run)
    assert result.returncode == 0, result.stderr
    assert "<html" in (copy_of_run / "report.html").read_text()


def test_a_second_run_in_the_same_directory_is_refused(dfnas, tiny_config: Path, copy_of_run: Path):
    with exclusive(copy_of_run):
        result = dfnas("run", tiny_config, "--run-dir", copy_of_run)
    assert result.returncode == 2
    assert "another run is working in" in result.stderr
    assert "Traceback" not in result.stderr
