"""`dfnas import-dataset`: search and retraining go on from images that were not made in the run."""

import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from prefect.logging import disable_run_logger

from flows.config_file import read_config, validated
from nas_core.config import RunConfig
from nas_core.errors import InputError
from storage.dataset import SyntheticImages, SyntheticStore
from storage.export import ExportFormat, export_dataset
from storage.files import digest_of_file, read_json
from storage.manifests import Manifest
from tasks.building import load_teacher, preflight
from tasks.importing import import_section, import_shard, shard_size
from tasks.run import Run, open_run
from tasks.stages import commit_dataset, initialise_noise, synthesize
from tests.tasks.conftest import PROJECT, TINY

Complete = Callable[[Run], dict[str, Manifest]]


def quiet(*_: object) -> None:
    """No progress bar."""


def imported(config: RunConfig, folder: Path) -> RunConfig:
    """The config with the images of a folder."""
    values = config.model_dump(mode="json") | {"synthesis": import_section(config, folder)}
    return validated(values, [], "test")


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): digest_of_file(p) for p in folder.rglob("*") if p.is_file()}


def test_an_export_comes_back_with_the_same_bytes_and_the_run_goes_on_to_the_same_result(
    finished: Run, complete: Complete, tmp_path: Path
):
    form = ExportFormat.IMAGEFOLDER
    export_dataset(finished.layout.dataset, tmp_path / "export", form, quiet)
    run = open_run(imported(finished.config, tmp_path / "export"), str(tmp_path / "run"))
    done = complete(run)
    objects = {name for name in digests(finished.layout.dataset) if "/c/" in name}
    theirs, ours = digests(finished.layout.dataset), digests(run.layout.dataset)
    assert all(ours[name] == theirs[name] for name in objects)
    export_dataset(run.layout.dataset, tmp_path / "again", form, quiet)
    before, after = digests(tmp_path / "export"), digests(tmp_path / "again")
    assert {name for name in before if before[name] != after[name]} == {"dataset.json"}
    results, original = read_json(run.layout.results), read_json(finished.layout.results)
    assert results["digests"]["dataset"] == original["digests"]["dataset"] == done["dataset"].digest
    assert results["student"]["agreement"] == original["student"]["agreement"]
    assert results["synthesis"]["imported"]["teacher"] == run.fingerprint
    page = run.layout.report.read_text()
    assert "dfnas cannot know that they are data-free" in page
    assert "says that dfnas made them from this teacher" in page
    assert "without a single real image" not in page
    assert "without a single real image" in finished.layout.report.read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """37 images of 12x9 pixels in folders named by digits, one of them with a leading zero."""
    draws = np.random.default_rng(0)
    for number in range(37):
        path = tmp_path / "images" / ("07" if number % 3 else "3") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (12, 9), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def test_the_teacher_labels_a_plain_folder(finished: Run, complete: Complete, folder: Path, tmp_path: Path):
    synthesis = finished.config.synthesis.model_copy(update={"canvas": None})
    config = imported(finished.config.model_copy(update={"synthesis": synthesis}), folder)
    assert (config.synthesis.rounds, config.synthesis.shards, config.synthesis.batch_size) == (1, 6, 6)
    assert config.synthesis.canvas == (12, 9)
    run = open_run(config, str(tmp_path / "run"))
    with (
        mock.patch("tasks.synthesis.show_table") as table,
        mock.patch("tasks.synthesis.show_pictures") as pictures,
        mock.patch("tasks.report.show_text") as result,
    ):
        complete(run)
    assert table.call_args.args[2] == "Imported images, judged by the teacher alone"
    assert pictures.call_args.args[1] == "Imported images"
    shown, page = result.call_args.args[1], run.layout.report.read_text()
    for text in (shown, page):
        assert "36 imported images" in text
        assert "dfnas cannot know that they are data-free" in text
        assert "recovered from its weights alone" not in text
        assert "synthetic images" not in text.partition("<pre>")[0].lower()
    images = SyntheticImages(run.layout.dataset)
    originals = {(pixels(path), 7 if path.parent.name == "07" else 3) for path in folder.rglob("*.png")}
    found = {
        (canvas.numpy().tobytes(), int(target.argmax()))
        for canvas, target in zip(images.canvases, images.targets, strict=True)
    }
    assert found <= originals
    assert len(found) == 36
    assert set(images.targets.amax(1).tolist()) == {1.0}
    assert (images.soft_labels.amax(1) < 1).all()
    assert read_json(run.layout.results)["synthesis"]["imported"] == {
        "path": str(folder), "teacher": None, "digest": None,
    }  # fmt: skip
    before = digests(run.layout.dataset)
    (run.layout.dataset / "canvases" / "c" / "2" / "0" / "0" / "0").unlink()
    again = complete(run)
    assert digests(run.layout.dataset) == before  # a damaged shard is imported again
    shutil.rmtree(folder)
    assert complete(run) == again  # and what is there is not read again


def took_in(run: Run) -> Path:
    """The finished dataset of a run of imported images."""
    config = run.config.synthesis
    with disable_run_logger():
        noise = initialise_noise.task.fn(run=run, upstream=[], position={})
        shard_rounds = [
            synthesize.task.fn(run=run, upstream=[noise], position={"round": round_, "shard": shard})
            for round_ in range(config.rounds)
            for shard in range(config.shards)
        ]
        commit_dataset.task.fn(run=run, upstream=[shard_rounds], position={})
    return run.layout.dataset


@pytest.mark.parametrize("known", [True, False])
def test_who_made_the_images_is_told_through_exports_and_imports_and_never_made_up(
    finished: Run, folder: Path, tmp_path: Path, known: bool
):
    """Of an export it is the teacher that made them; of a plain folder nobody, also once a run has exported them."""
    if known:
        folder = tmp_path / "made"
        export_dataset(finished.layout.dataset, folder, ExportFormat.IMAGEFOLDER, quiet)
    for number in range(2):
        config, directory = imported(finished.config, folder), tmp_path / f"run-{number}"
        dataset = took_in(Run(directory=str(directory), config=config, fingerprint=finished.fingerprint))
        origin = SyntheticStore.open(dataset).provenance["imported"]
        assert origin["teacher"] == (finished.fingerprint if known else None)
        folder = tmp_path / f"exported-{number}"
        export_dataset(dataset, folder, ExportFormat.IMAGEFOLDER, quiet)


def test_changed_images_of_an_export_are_noticed(finished: Run, complete: Complete, tmp_path: Path):
    export_dataset(finished.layout.dataset, tmp_path / "export", ExportFormat.IMAGEFOLDER, quiet)
    path = next((tmp_path / "export").rglob("*.png"))
    Image.new("L", (10, 10)).save(path)
    run = open_run(imported(finished.config, tmp_path / "export"), str(tmp_path / "run"))
    with pytest.raises(InputError, match="were changed since dfnas exported them"):
        complete(run)


def test_a_folder_that_changed_while_it_was_imported_is_refused(
    finished: Run, complete: Complete, folder: Path, tmp_path: Path
):
    config = imported(finished.config, folder)
    (folder / "3" / "00.png").unlink()
    with pytest.raises(InputError, match="holds other images than when they were imported"):
        complete(open_run(config, str(tmp_path / "run")))


def edited(config: RunConfig, **sizes: int) -> RunConfig:
    """The config as somebody would have changed it by hand."""
    return config.model_copy(update={"synthesis": config.synthesis.model_copy(update=sizes)})


@pytest.mark.parametrize("sizes", [{"shards": 7}, {"batch_size": 7}, {"rounds": 2}, {"shards": 3, "batch_size": 13}])
def test_sizes_that_a_plain_folder_has_no_images_for_are_refused(finished: Run, folder: Path, sizes: dict[str, int]):
    """It has 37, for 6 shards of 6."""
    config = imported(finished.config, folder)
    preflight(config)
    preflight(edited(config, shards=3, batch_size=12))
    with pytest.raises(InputError, match=r"keep the sizes that `dfnas import-dataset` writes") as caught:
        preflight(edited(config, **sizes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sizes", [{"rounds": 1}, {"shards": 1}, {"batch_size": 4}, {"canvas": (11, 10)}])
def test_an_export_keeps_its_sizes(finished: Run, tmp_path: Path, sizes: dict[str, int]):
    export_dataset(finished.layout.dataset, tmp_path / "export", ExportFormat.WEBDATASET, quiet)
    config = imported(finished.config, tmp_path / "export")
    preflight(config)
    with pytest.raises(InputError, match=r"do not make . rounds of . shards of . canvases of 1.x10: keep the sizes"):
        preflight(edited(config, **sizes))
    shutil.rmtree(tmp_path / "export")
    preflight(config)


def test_a_config_whose_rounds_start_from_canvases_can_import(finished: Run, folder: Path):
    labels = finished.config.synthesis.labels.model_copy(update={"start": "canvas"})
    synthesis = finished.config.synthesis.model_copy(update={"labels": labels})
    config = imported(finished.config.model_copy(update={"synthesis": synthesis}), folder)
    assert config.synthesis.labels == finished.config.synthesis.labels


def test_folders_are_named_like_classes_or_else_like_their_indices(tmp_path: Path):
    """Where 7 is the name of class 2, a folder of that name is class 2; each image's pixels tell its class."""
    names = "['cat', 'dog', '7', 'd', 'e', 'f', 'g', 'h', 'i', 'j']"
    classes = {"0": 0, "dog": 1, "7": 2}
    for name, index in classes.items():
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (10, 10), 50 * index).save(tmp_path / "images" / name / f"{number}.png")
    config = read_config(PROJECT / "configs" / "digits.yaml", (*TINY, f"teacher.class_names={names}"))
    fingerprint = load_teacher(config.teacher, config.device).fingerprint()
    run = Run(directory=str(tmp_path), config=imported(config, tmp_path / "images"), fingerprint=fingerprint)
    shards = [import_shard(run, 0, shard) for shard in range(2)]
    targets = torch.cat([shard.targets.argmax(1) for shard in shards])
    assert sorted(targets.tolist()) == [0] * 4 + [1] * 4 + [2] * 4
    assert torch.equal(torch.cat([shard.canvases[:, 0, 0, 0] for shard in shards]), (50 * targets).to(torch.uint8))


def test_a_folder_of_no_class_of_the_teacher_is_named(finished: Run, folder: Path):
    (folder / "3").rename(folder / "cat")
    with pytest.raises(InputError, match="cat is named neither like one of the teacher's 10 classes nor"):
        import_section(finished.config, folder)
    (folder / "cat").rename(folder / "12")
    with pytest.raises(InputError, match="12 is named neither"):
        import_section(finished.config, folder)


def test_images_for_another_teacher_are_refused(finished: Run, tmp_path: Path):
    export_dataset(finished.layout.dataset, tmp_path / "export", ExportFormat.IMAGEFOLDER, quiet)
    about = tmp_path / "export" / "dataset.json"
    about.write_text(about.read_text().replace('"num_classes": 10', '"num_classes": 11'))
    with pytest.raises(InputError, match="1 channels with labels of 11 classes, but the teacher takes 1 and has 10"):
        import_section(finished.config, tmp_path / "export")


def test_shards_leave_out_as_few_images_as_possible():
    assert shard_size(37, 8) == 6
    assert shard_size(5, 8) == 5
    assert shard_size(50_000, 64) == 50
    assert all(images % shard_size(images, 64) <= 9 for images in range(65, 5_000))
