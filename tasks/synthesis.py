"""Synthesis: noise, shard-rounds of optimisation with recursive labels, and the committed dataset."""

import torch

from nas_core.seeding import generator
from nas_core.synthesis.labels import one_hot, shard_classes
from nas_core.synthesis.pixels import PixelSynthesis
from storage.dataset import DatasetLayout, SyntheticStore
from storage.files import digest_of, digest_of_json, write_json
from storage.manifests import Manifest
from tasks.progress import progress_bar
from tasks.run import Run
from tasks.stage import Product, stage


@stage("noise", version=1, sections=("synthesis",))
def initialise_noise(run: Run, _piece: str, _key: str) -> Product:
    """Lay out the dataset and give every canvas its class and every shard-round its noise.

    Noise is kept as the seed of its generator, from which a shard-round draws its canvases: a terabyte of Gaussian
    numbers would say nothing more.
    """
    config, teacher = run.config.synthesis, run.teacher()
    canvas = (teacher.input_shape[0], *config.canvas_size(teacher.input_shape))
    layout = DatasetLayout(config.rounds, config.shards, config.batch_size, canvas, teacher.num_classes)
    store = SyntheticStore.create(run.layout.dataset, layout)
    classes = [_classes(run, shard) for shard in range(config.shards)]
    digest = digest_of(*(shard.numpy().tobytes() for shard in classes))
    return Product(
        digest=digest_of_json([digest, list(canvas), config.rounds]),
        files=[store.path / name / "zarr.json" for name in layout.arrays()],
        figures={"images": layout.images, "canvas": "x".join(map(str, canvas))},
    )


@stage("synthesis", version=1, sections=("synthesis",))
def synthesize(run: Run, piece: str, _key: str, _previous: Manifest, *, round: int, shard: int) -> Product:  # noqa: A002
    """Make one batch of images: from noise towards one-hot targets, or the labels of the round before.

    Depends on no other shard, so shards need no barrier between rounds.
    """
    config, teacher = run.config.synthesis, run.teacher()
    store = SyntheticStore.open(run.layout.dataset)
    if round == 0:
        targets = one_hot(_classes(run, shard), teacher.num_classes)
    else:
        targets = torch.from_numpy(store.read(round - 1, shard, "soft_labels"))
    engine = PixelSynthesis(
        teacher,
        canvas_size=config.canvas_size(teacher.input_shape),
        label_temperature=config.label_temperature,
        **config.pixels.values(),
    )
    noise = generator(run.config.seed, "synthesis.noise", round, shard)
    images = engine.make(targets, noise, progress_bar(piece))
    arrays = {name: getattr(images, name).numpy() for name in ("canvases", "targets", "soft_labels", "losses")}
    digest = store.write(round, shard, arrays)
    records = run.layout.records(piece)
    write_json(records, images.history)
    return Product(
        digest=digest,
        files=[*store.object_paths(round, shard), records],
        figures={"images": len(targets), "loss": round_figure(float(images.losses.mean()))},
    )


@stage("dataset", version=1)
def commit_dataset(run: Run, _piece: str, _key: str, shard_rounds: list[Manifest]) -> Product:
    """Read every shard-round back, and record in the dataset where its images come from."""
    store = SyntheticStore.open(run.layout.dataset)
    layout = store.layout
    progress = progress_bar("dataset")
    positions = [(r, s) for r in range(layout.rounds) for s in range(layout.shards)]
    digests = []
    for done, (round_, shard) in enumerate(positions, start=1):
        digests.append(store.digest(round_, shard))
        progress(done, len(positions), {})
    digest = digest_of_json(digests)
    store.annotate(
        {
            "digest": digest,
            "teacher": run.fingerprint,
            "seed": run.config.seed,
            "synthesis": run.config.synthesis.model_dump(mode="json"),
            "manifests": [m.piece for m in shard_rounds],
        }
    )
    return Product(digest=digest, files=[], figures={"images": layout.images, "rounds": layout.rounds})


def round_figure(value: float) -> float:
    """A number for people to read: four significant digits."""
    return float(f"{value:.4g}")


def _classes(run: Run, shard: int) -> torch.Tensor:
    """Class of each image of a shard in round 0."""
    return shard_classes(run.config.seed, shard, run.config.synthesis.batch_size, run.teacher().num_classes)
