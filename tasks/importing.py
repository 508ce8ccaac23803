"""Images that were not made in this run: `dfnas import-dataset` fits a config to them, and the shards take them."""

import functools
from pathlib import Path
from typing import Any

import torch

from nas_core.config import RunConfig
from nas_core.errors import InputError
from nas_core.seeding import generator
from nas_core.settings.synthesis import ImportedSpec
from nas_core.synthesis.build import build_engine
from nas_core.synthesis.labels import chosen_classes, one_hot
from nas_core.synthesis.shard import ShardImages
from nas_core.teachers import Teacher
from storage.dataset import DatasetLayout
from storage.errors import StorageError
from storage.imports import ExportedImages, PlainImages, open_images
from tasks.building import load_teacher
from tasks.run import Run


def import_section(config: RunConfig, folder: Path) -> dict[str, Any]:
    """The section `synthesis` of a config, for the images of a folder in place of synthesis.

    Args:
        config: The run's; of a plain folder, `synthesis.batch_size` is the most images of a shard, and
            `synthesis.canvas` their size. Without that, they keep their own if all have the same one, which covers the
            teacher's input.
        folder: An export of dfnas, or a folder of images per class.

    Raises:
        InputError: If it holds no images, or they do not fit the teacher.
    """
    teacher = load_teacher(config.teacher, config.device)
    try:
        images = open_images(folder)
    except StorageError as error:
        raise InputError(str(error)) from error
    if isinstance(images, ExportedImages):
        layout = images.layout
        _check_fits(layout, teacher, folder)
    else:
        channels, canvas = teacher.input_shape[0], _canvas(config, images, teacher)
        _classes(images, teacher)
        size = shard_size(len(images.files), config.synthesis.batch_size)
        layout = DatasetLayout(1, len(images.files) // size, size, (channels, *canvas), teacher.num_classes)
    values = config.synthesis.model_dump(mode="json")
    return values | {
        # What starts a round says nothing of images that are there already.
        "labels": values["labels"] | {"start": "noise"},
        "rounds": layout.rounds,
        "shards": layout.shards,
        "batch_size": layout.batch_size,
        "canvas": list(layout.canvas[1:]),
        "classes": None,
        "engine": ImportedSpec(path=folder.resolve(), listing=images.listing).model_dump(mode="json"),
    }


def shard_size(images: int, most: int) -> int:
    """Images per shard: between half of `most` and `most`, such that the fewest are left out of the last one.

    Args:
        images: How many there are; fewer than `most` make one shard.
        most: The largest size.
    """
    if images <= most:
        return images
    return min(range(most, most // 2, -1), key=lambda size: images % size)


def import_shard(run: Run, round_: int, shard: int) -> ShardImages:
    """The images of one shard-round: with the labels that they came with, or else with the teacher's.

    Raises:
        InputError: If the folder is gone, or no longer holds what the config was written for.
    """
    teacher, config = run.teacher(), run.config.synthesis
    spec = config.engine
    assert isinstance(spec, ImportedSpec)
    try:
        images = _opened(spec.path, spec.listing)
        if isinstance(images, ExportedImages):
            arrays = images.read(round_, shard)
            return ShardImages(**{name: torch.from_numpy(array) for name, array in arrays.items()}, history=[])
        numbers = _order(len(images.files), run.config.seed).split(config.batch_size)[shard]
        canvas = (teacher.input_shape[0], *config.canvas_size(teacher.input_shape))
        canvases = torch.from_numpy(images.read(numbers.tolist(), canvas))
    except StorageError as error:
        raise InputError(str(error)) from error
    return build_engine(teacher, config).make(
        one_hot(_classes(images, teacher)[numbers], teacher.num_classes),
        generator(run.config.seed, "import.windows", shard),
        start=canvases,
    )


def import_record(run: Run, digest: str) -> dict[str, Any]:
    """Where imported images come from, for the dataset and the results.

    Args:
        run: The run.
        digest: Of the dataset as imported.

    Returns:
        "path"; "teacher" that made them and "digest" as the export says, None for a plain folder. Of images that were
        imported before they were exported, the teacher is the one that was named then.

    Raises:
        InputError: If an export says that its content was another.
    """
    spec = run.config.synthesis.engine
    assert isinstance(spec, ImportedSpec)
    images = _opened(spec.path, spec.listing)
    said = images.provenance if isinstance(images, ExportedImages) else {}
    if said.get("digest", digest) != digest:
        raise InputError(
            f"images or labels in {spec.path} were changed since dfnas exported them (dataset.json has another "
            "digest): export them again, or remove dataset.json to import them as plain images"
        )
    maker = said.get("imported") or said
    return {"path": str(spec.path), "teacher": maker.get("teacher"), "digest": said.get("digest")}


@functools.lru_cache(maxsize=1)
def _opened(folder: Path, listing: str) -> ExportedImages | PlainImages:
    """What the folder holds; looked through once per process."""
    try:
        images = open_images(folder)
    except StorageError as error:
        raise InputError(f"images to import: {error}") from error
    if images.listing != listing:
        raise InputError(
            f"{folder} holds other images than when they were imported: restore them, or import them into another "
            "--run-dir"
        )
    return images


def _order(images: int, seed: int) -> torch.Tensor:
    """Which image of a plain folder comes when: at random, so that shards mix the classes, and none loses its last."""
    return torch.randperm(images, generator=generator(seed, "import.order"))


def _canvas(config: RunConfig, images: PlainImages, teacher: Teacher) -> tuple[int, int]:
    height, width = teacher.input_shape[1:]
    own = None
    if config.synthesis.canvas is None:
        try:
            own = images.common_size()
        except StorageError as error:
            raise InputError(str(error)) from error
    if own is not None and own[0] >= height and own[1] >= width:
        return own
    return config.synthesis.canvas_size(teacher.input_shape)


def _classes(images: PlainImages, teacher: Teacher) -> torch.Tensor:
    """Class of each image: its folder is the name of one of the teacher's classes, or its index.

    Raises:
        InputError: Naming a folder that is neither.
    """
    names, index = teacher.class_names, {}
    for folder in sorted(set(images.classes)):
        try:
            choice = int(folder) if folder.isdecimal() and folder not in names else folder
            index[folder] = int(chosen_classes([choice], names))
        except InputError as error:
            raise InputError(
                f"the folder {images.root / folder} is named neither like one of the teacher's {len(names)} classes "
                f"nor like its index (the first is '{names[0]}', or 0)"
            ) from error
    return torch.tensor([index[folder] for folder in images.classes])


def _check_fits(layout: DatasetLayout, teacher: Teacher, folder: Path) -> None:
    if layout.num_classes != teacher.num_classes or layout.canvas[0] != teacher.input_shape[0]:
        raise InputError(
            f"{folder} holds images of {layout.canvas[0]} channels with labels of {layout.num_classes} classes, but "
            f"the teacher takes {teacher.input_shape[0]} and has {teacher.num_classes}: import them for the teacher "
            "that they were made from"
        )
