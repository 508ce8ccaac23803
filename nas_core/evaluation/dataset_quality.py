"""How good a synthetic data set is, judged without any real image: by the teacher that it was made from.

High marks are necessary, not sufficient: the same teacher made the images. The measures find what goes wrong most
often: classes that the teacher does not see in other windows than the optimised ones, labels without ranks, statistics
that match per batch and not over the set, images alike within a class, and pixels at the limits of their range.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn.functional import normalize

from nas_core.errors import InputError
from nas_core.synthesis.labels import entropy, top1_drift, top_overlap
from nas_core.synthesis.regional import resized
from nas_core.synthesis.statistics import channel_statistics
from nas_core.teachers.teacher import Teacher
from nas_core.training.batches import SyntheticBatches

JUDGED_IMAGES = 1024
"""Images of a run's dataset that are judged, at random; of fewer, all."""

NEAR_DUPLICATE = 0.01
"""Cosine distance of two images' features below which they count as near-duplicates."""


@dataclass(frozen=True)
class DatasetQuality:
    """Data-free measures of a set of synthetic images, on one fresh random window of each.

    Attributes:
        images: How many images were judged.
        teacher_top1: Share of images whose likeliest class, to the teacher, is the target's, in [0, 1].
        rarest_class: Of the classes asked for, the least seen: how many images the teacher takes for it, as a share of
            those asked for it, >= 0. Below 0.5 a class is under-represented.
        verifier_top1: Like `teacher_top1`, of another network that had no part in making the images; None without
            one. A high teacher and a low verifier mean adversarial noise.
        confidence: Mean of the teacher's largest probability, in [0, 1].
        entropy: Mean entropy of the teacher's predictions, in nats.
        top5_overlap: Mean share of the target's five likeliest classes that are among the prediction's, in [0, 1];
            of images with soft targets, None without any.
        rank_correlation: Mean Spearman correlation of target and prediction over the classes, in [-1, 1]; likewise.
        batch_norm_distances: Relative distance of the whole set's statistics to each BatchNorm layer's, >= 0, by the
            layer's name; see `relative_distance`.
        within_class_distance: Mean cosine distance of the features of two images of one class, in [0, 2]; None if no
            class has two images.
        near_duplicates: Share of images with another at a cosine distance below `NEAR_DUPLICATE`, in [0, 1].
        clipped_pixels: Share of the bytes of the canvases that are 0 or 255, in [0, 1].
    """

    images: int
    teacher_top1: float
    rarest_class: float
    verifier_top1: float | None
    confidence: float
    entropy: float
    top5_overlap: float | None
    rank_correlation: float | None
    batch_norm_distances: dict[str, float]
    within_class_distance: float | None
    near_duplicates: float
    clipped_pixels: float

    def figures(self) -> dict[str, Any]:
        """The measures as plain numbers, the layers' distances as their mean and their largest."""
        distances = list(self.batch_norm_distances.values())
        summary = {
            "batch_norm_distance": sum(distances) / len(distances) if distances else None,
            "batch_norm_distance_largest": max(distances, default=None),
        }
        return {name: value for name, value in vars(self).items() if name != "batch_norm_distances"} | summary


def dataset_quality(
    canvases: UInt8[Tensor, "images channels canvas_height canvas_width"],
    targets: Float[Tensor, "images classes"],
    teacher: Teacher,
    generator: torch.Generator,
    batch_size: int = 64,
    verifier: Teacher | None = None,
) -> DatasetQuality:
    """Judge images by their teacher, and by another network if there is one.

    Args:
        canvases: The images; a random sample of a large set will do.
        targets: The class probabilities that they were made for.
        teacher: The teacher that they were made from.
        generator: Source of the windows.
        batch_size: Images per forward pass, >= 1. Windows and flips are drawn batch by batch, so that another size
            judges other ones, as another generator does.
        verifier: Another classifier of the same classes, on the same device.
    """
    observer = _Observer(teacher)
    seen, verified = [], []
    with observer.watching():
        for batch in SyntheticBatches(canvases, teacher, batch_size).fresh(generator):
            seen.append((batch.teacher_logits.float().cpu(), observer.features(batch.teacher_logits)))
            if verifier is not None:
                theirs = _seen_by(verifier, teacher.to_bytes(batch.images))
                verified.append(theirs[:, verifier.positions(teacher.class_names)])
    logits, features = (torch.cat(pieces) for pieces in zip(*seen, strict=True))
    predictions = logits.softmax(dim=1)
    soft = (targets > 0).sum(dim=1) > 1
    return DatasetQuality(
        images=len(canvases),
        teacher_top1=1 - top1_drift(targets, predictions),
        rarest_class=rarest_class(targets.argmax(dim=1), logits.argmax(dim=1)),
        verifier_top1=1 - top1_drift(targets, torch.cat(verified)) if verified else None,
        confidence=float(predictions.amax(dim=1).mean()),
        entropy=float(entropy(predictions).mean()),
        top5_overlap=top_overlap(targets, predictions),
        rank_correlation=float(spearman(targets[soft], logits[soft]).mean()) if soft.any() else None,
        batch_norm_distances=observer.distances(),
        within_class_distance=within_class_distance(features, targets.argmax(dim=1)),
        near_duplicates=near_duplicates(features, NEAR_DUPLICATE),
        clipped_pixels=clipped_pixels(canvases),
    )


def check_verifier(verifier: Teacher, teacher: Teacher) -> None:
    """Check that a verifier tells the same classes apart in images of the same kind.

    Raises:
        InputError: If it has another number of classes or of channels than the teacher.
    """
    theirs, ours = ((network.num_classes, network.input_shape[0]) for network in (verifier, teacher))
    if theirs != ours:
        raise InputError(
            f"evaluation.verifier has {theirs[0]} classes and takes {theirs[1]} channels, the teacher has {ours[0]} "
            f"and takes {ours[1]}: name a classifier of the same classes"
        )


def _seen_by(verifier: Teacher, windows: UInt8[Tensor, "batch channels height width"]) -> Tensor:
    """A verifier's logits of windows, which are resized to its input where that differs."""
    images = resized(verifier.normalise(windows), verifier.input_shape[1:])
    return verifier.logits(images).float().cpu()


def rarest_class(asked: Int64[Tensor, " images"], seen: Int64[Tensor, " images"]) -> float:
    """The least of (images seen as a class) / (images asked for it) over the classes asked for, >= 0.

    Args:
        asked: Class of each image's target.
        seen: The class that the teacher takes it for.
    """
    classes, wanted = asked.unique(return_counts=True)
    found = torch.bincount(seen, minlength=int(classes.max()) + 1)[classes]
    return float((found / wanted).min())


def spearman(one: Float[Tensor, "rows classes"], other: Float[Tensor, "rows classes"]) -> Float[Tensor, " rows"]:
    """Spearman's rank correlation of each pair of rows, in [-1, 1]; ties are ranked in order of position.

    Args:
        one: Any numbers, at least two columns.
        other: Any numbers.
    """
    first, second = (values.argsort(dim=1, stable=True).argsort(dim=1).double() for values in (one, other))
    classes = one.shape[1]
    return (1 - 6 * (first - second).square().sum(dim=1) / (classes * (classes**2 - 1))).float()


def relative_distance(
    mean: Float[Tensor, " channels"],
    var: Float[Tensor, " channels"],
    running_mean: Float[Tensor, " channels"],
    running_var: Float[Tensor, " channels"],
) -> float:
    """How far a set's channel statistics are from a BatchNorm layer's, as a share of the layer's own.

    Returns:
        (||mean - running_mean|| + ||var - running_var||) / (||running_mean|| + ||running_var||), >= 0: the layer's
        term of the synthesis loss in units that can be compared over layers and teachers. 1 is as far as zeros are.
    """
    distance = torch.linalg.vector_norm(mean - running_mean) + torch.linalg.vector_norm(var - running_var)
    return float(distance / (torch.linalg.vector_norm(running_mean) + torch.linalg.vector_norm(running_var)))


def within_class_distance(
    features: Float[Tensor, "images features"], classes: Int64[Tensor, " images"]
) -> float | None:
    """Mean cosine distance over all pairs of images of one class, then over the classes with two images or more.

    Args:
        features: One row per image.
        classes: The class of each.

    Returns:
        A number in [0, 2], 0 for images that are all alike; None if no class has two images.
    """
    units = normalize(features, dim=1)
    groups = [units[classes == label] for label in classes.unique() if (classes == label).sum() > 1]
    if not groups:
        return None
    # The sum of all similarities without those of images with themselves, over the ordered pairs.
    means = [(group.sum(dim=0).square().sum() - len(group)) / (len(group) * (len(group) - 1)) for group in groups]
    return float(1 - torch.stack(means).mean())


def near_duplicates(features: Float[Tensor, "images features"], threshold: float) -> float:
    """Share of images whose nearest neighbour is closer than `threshold` in cosine distance, in [0, 1]."""
    units = normalize(features, dim=1)
    similarities = (units @ units.T).fill_diagonal_(-torch.inf)
    return float((1 - similarities.amax(dim=1) < threshold).float().mean())


def clipped_pixels(canvases: UInt8[Tensor, "images channels height width"]) -> float:
    """Share of bytes at the limits of their range, 0 or 255, in [0, 1]."""
    return float(((canvases == 0) | (canvases == 255)).float().mean())


def class_affinity(
    targets: Float[Tensor, "images classes"], soft_labels: Float[Tensor, "images classes"]
) -> Float[Tensor, "classes classes"]:
    """Which classes the teacher's soft labels join: the mean soft label per target class.

    Args:
        targets: The class probabilities that the images were made for; the likeliest is the target class.
        soft_labels: What the teacher found in them.

    Returns:
        One row per target class, summing to 1; NaN for classes without images.
    """
    labels, classes = targets.argmax(dim=1), targets.shape[1]
    sums = torch.zeros(classes, classes).index_add_(0, labels, soft_labels)
    return sums / labels.bincount(minlength=classes).unsqueeze(1)


def off_diagonal_mass(affinity: Float[Tensor, "classes classes"]) -> float:
    """Mean probability outside of the target class, over the classes with images, in [0, 1]."""
    return float(1 - affinity.diagonal().nanmean())


def top_pairs(
    affinity: Float[Tensor, "classes classes"], class_names: Sequence[str], count: int = 5
) -> list[tuple[str, str, float]]:
    """The strongest joins as (target class, joined class, mean probability), strongest first.

    Args:
        affinity: See `class_affinity`.
        class_names: One name per class.
        count: How many at most; joins of probability 0 are none.
    """
    others = affinity.nan_to_num(0).fill_diagonal_(0)
    values, positions = others.flatten().topk(min(count, others.numel()))
    classes = len(class_names)
    return [
        (class_names[int(position // classes)], class_names[int(position % classes)], value)
        for value, position in zip(values.tolist(), positions.tolist(), strict=True)
        if value > 0
    ]


class _Observer:
    """Gathers, over several calls of a teacher, what enters its BatchNorm layers and its last linear layer.

    Plain hooks on the teacher as it is, in full precision: this judges what a faster copy of it has made.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._module = teacher.module
        self._norms = teacher.batch_norms
        self._counts: dict[str, int] = dict.fromkeys(self._norms, 0)
        # Per layer and channel: the sum of the values and of their squares.
        self._sums: dict[str, Tensor] = {}
        self._latest: Tensor | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Observe every call within."""

        def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._latest = inputs[0]

        linear = [module for module in self._module.modules() if isinstance(module, nn.Linear)]
        hooks = [module.register_forward_pre_hook(keep) for module in linear]
        for name, norm in self._norms.items():
            hooks.append(norm.register_forward_pre_hook(functools.partial(self._add, name)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _add(self, name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].numel() // inputs[0].shape[1]
        mean, var = (figure.double().cpu() for figure in channel_statistics(inputs[0].float(), torch.float32))
        self._counts[name] += values
        self._sums[name] = self._sums.get(name, 0) + values * torch.stack([mean, var + mean.square()])

    def features(self, logits: Tensor) -> Tensor:
        """What entered the last linear layer of the last call, one row per image; without such a layer, its logits."""
        if self._latest is None or len(self._latest) != len(logits):
            return logits.float().cpu()
        return self._latest.float().flatten(start_dim=1).cpu()

    def distances(self) -> dict[str, float]:
        """The relative distance of all that was seen to each layer's running statistics."""
        result = {}
        for name, sums in self._sums.items():
            norm = self._norms[name]
            assert norm.running_mean is not None
            assert norm.running_var is not None
            mean, square = sums / self._counts[name]
            running = norm.running_mean.double().cpu(), norm.running_var.double().cpu()
            result[name] = relative_distance(mean, square - mean.square(), *running)
        return result
