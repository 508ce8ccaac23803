"""Synthesis: noise, shard-rounds of optimisation with recursive labels, and the committed dataset."""

import safetensors.torch
import torch

from nas_core.checkpoint import Checkpoint, Progress
from nas_core.device import limited_threads
from nas_core.evaluation.dataset_quality import JUDGED_IMAGES, DatasetQuality, dataset_quality
from nas_core.reporting.figures import image_grid
from nas_core.reporting.summary import layer_rows, quality_rows
from nas_core.seeding import generator
from nas_core.synthesis.build import build_engine
from nas_core.synthesis.labels import chosen_classes, label_changes, one_hot, shard_classes
from nas_core.synthesis.shard import ShardImages
from storage.dataset import SyntheticStore
from storage.errors import StorageError
from storage.files import digest_of, digest_of_json, write_bytes, write_json
from storage.manifests import Manifest, read_manifest
from tasks.artifacts import show_pictures, show_table, task_progress
from tasks.building import dataset_layout
from tasks.data import first_images, open_images, shown_classes
from tasks.importing import import_record, import_shard
from tasks.run import Run
from tasks.stage import Product, round_figure, stage_checkpoint


def initialise_noise(run: Run, _piece: str, _key: str) -> Product:
    """Lay out the dataset and give every canvas its class and every shard-round its noise.

    Noise is kept as the seed of its generator, from which a shard-round draws its canvases: a terabyte of Gaussian
    numbers would say nothing more.
    """
    config = run.config.synthesis
    layout = dataset_layout(config, run.teacher())
    store = SyntheticStore.create(run.layout.dataset, layout)
    classes = [_classes(run, shard) for shard in range(config.shards)]
    digest = digest_of(*(shard.numpy().tobytes() for shard in classes))
    return Product(
        digest=digest_of_json([digest, list(layout.canvas), config.rounds]),
        files=[store.path / name / "zarr.json" for name in layout.arrays()],
        figures={"images": layout.images, "canvas": "x".join(map(str, layout.canvas))},
    )


def learn_engine(run: Run, piece: str, key: str, _noise: Manifest) -> Product:
    """Learn once what all shards start from, such as the generator that each of them adapts."""
    config, teacher = run.config.synthesis, run.teacher()
    classes = chosen_classes(config.classes, teacher.class_names)
    with limited_threads(run.config.execution.threads):
        learned, history = build_engine(teacher, config).learn(
            classes,
            config.batch_size,
            run.config.seed,
            stage_checkpoint(run, piece, key),
            task_progress(piece, run.artifact("learn")),
        )
    content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in learned.items()})
    write_bytes(run.layout.learned, content)
    records = run.layout.records(piece)
    write_json(records, history)
    figures = {name: round_figure(history[-1][name]) for name in ("step", "classification", "batch_norm")}
    return Product(digest=digest_of(content), files=[run.layout.learned, records], figures=figures)


def synthesize(run: Run, piece: str, key: str, _previous: Manifest, *, round: int, shard: int) -> Product:  # noqa: A002
    """Make one batch of images: from noise towards one-hot targets, or the labels of the round before.

    Imported images are taken as they are. Depends on no other shard, so shards need no barrier between rounds.
    """
    config = run.config.synthesis
    store = SyntheticStore.open(run.layout.dataset)
    if config.engine.name == "imported":
        images = import_shard(run, round, shard)
    else:
        images = _make_shard(run, store, stage_checkpoint(run, piece, key), task_progress(piece), round, shard)
    arrays = {name: getattr(images, name).numpy() for name in ("canvases", "targets", "soft_labels", "losses")}
    digest = store.write(round, shard, arrays)
    records = run.layout.records(piece)
    write_json(records, images.history)
    return Product(
        digest=digest,
        files=[*store.object_paths(round, shard), records],
        figures={
            "images": len(images.targets),
            "loss": round_figure(float(images.losses.mean())),
            **{name: round_figure(value) for name, value in label_changes(images.targets, images.soft_labels).items()},
        },
    )


def _make_shard(
    run: Run, store: SyntheticStore, checkpoint: Checkpoint, progress: Progress, round_: int, shard: int
) -> ShardImages:
    """Optimise the images of one shard-round."""
    config, teacher = run.config.synthesis, run.teacher()
    targets, temperature, start = one_hot(_classes(run, shard), teacher.num_classes), 1.0, None
    if round_ > 0:
        targets = torch.from_numpy(store.read(round_ - 1, shard, "soft_labels"))
        temperature = config.labels.temperature
        if config.labels.start == "canvas":
            start = torch.from_numpy(store.read(round_ - 1, shard, "canvases"))
    learned = _learned(run) if config.engine.learns else {}
    with limited_threads(run.config.execution.shard_threads()):
        return build_engine(teacher, config, learned).make(
            targets,
            generator(run.config.seed, "synthesis.noise", round_, shard),
            target_temperature=temperature,
            start=start,
            checkpoint=checkpoint,
            progress=progress,
        )


def commit_dataset(run: Run, piece: str, _key: str, shard_rounds: list[Manifest]) -> Product:
    """Read every shard-round back, judge the images, and record in the dataset where they come from."""
    store = SyntheticStore.open(run.layout.dataset)
    layout = store.layout
    progress = task_progress("dataset")
    positions = layout.positions()
    digests = []
    for done, ((round_, shard), made) in enumerate(zip(positions, shard_rounds, strict=True), start=1):
        digests.append(store.digest(round_, shard))
        if digests[-1] != made.digest:
            raise StorageError(f"round {round_} shard {shard} holds other images than were made")
        progress(done, len(positions), {})
    digest = digest_of_json(digests)
    imported = {"imported": import_record(run, digest)} if run.config.synthesis.engine.name == "imported" else {}
    store.annotate(
        {
            **imported,
            "digest": digest,
            "teacher": run.fingerprint,
            "seed": run.config.seed,
            "synthesis": run.config.synthesis.model_dump(mode="json"),
            "manifests": [m.piece for m in shard_rounds],
        }
    )
    quality = _quality(run)
    records = run.layout.records(piece)
    write_json(records, {**quality.figures(), "batch_norm_distances": quality.batch_norm_distances})
    figures = {"images": layout.images, "rounds": layout.rounds, "teacher_top1": round_figure(quality.teacher_top1)}
    return Product(digest=digest, files=[records], figures=figures)


def _learned(run: Run) -> dict[str, torch.Tensor]:
    """What the engine has learned; its file has no checksum of its own."""
    content = run.layout.learned.read_bytes()
    made = read_manifest(run.layout.manifest("learn"))
    if made is None or digest_of(content) != made.digest:
        raise StorageError(f"{run.layout.learned} is damaged")
    return safetensors.torch.load(content)


def _classes(run: Run, shard: int) -> torch.Tensor:
    """Class of each image of a shard in round 0."""
    config = run.config.synthesis
    classes = chosen_classes(config.classes, run.teacher().class_names)
    return classes[shard_classes(run.config.seed, shard, config.batch_size, len(classes))]


def _quality(run: Run) -> DatasetQuality:
    """The measures of the dataset, on a random sample of a large one; also shown in Prefect."""
    images = open_images(run)
    draws = generator(run.config.seed, "quality")
    sample = torch.randperm(len(images), generator=draws)[:JUDGED_IMAGES]
    quality = dataset_quality(
        images[sample]["canvas"], images.targets[sample], run.teacher(), draws, verifier=run.verifier()
    )
    measures = quality_rows(quality.figures()) + layer_rows(quality.batch_norm_distances)
    title = f"{'Imported' if run.config.synthesis.engine.name == 'imported' else 'Synthetic'} images"
    show_table(
        run.artifact("quality"),
        [{"measure": name, "value": value} for name, value in measures],
        f"{title}, judged by the teacher alone",
    )
    shown = shown_classes(images)
    names = [run.teacher().class_names[index] for index in shown]
    grid = image_grid(first_images(images, shown), names)
    show_pictures(
        run.artifact("images"),
        title,
        [(grid, f"{len(images):,} images; the first of each class, one row per round")],
        f"{title} by round and class",
    )
    return quality
