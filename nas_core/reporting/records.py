"""What the report is made from: plain records of every stage, already in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from nas_core.search_spaces.base import Architecture, Slot


@dataclass(frozen=True)
class RunRecords:
    """Everything the report of one run shows.

    Attributes:
        results: The figures of merit, nested: teacher {top1, fingerprint, classes}, student {top1, agreement, macs,
            params}, both also {latency_ms, batch_latency_ms} with latency {batch_size, device, processor, threads},
            search {architecture, strategy, space, true_accuracy, table_latency_ms}, retrain {style, epochs, width,
            cells}, baselines {measure, images, networks: [{kind, title, top1, agreement, macs, params}]}, synthesis
            {images, rounds, labels: what `label_changes` says of each round, imported: {path, teacher, digest} or
            None}, quality (`DatasetQuality.figures()`),
            timings {synthesis, search, retrain, evaluation, total} in seconds, seed, device, versions {package:
            version}, evaluation {images, source}, digests {dataset, search, model}. Both top1 are None without real
            images, latency is None where it was not measured, baselines are None where none were asked for; the rest
            is required.
        config_yaml: The resolved config.
        class_names: One name per class of the teacher.
        shown_classes: The class indices that `image_grid` shows, in its order.
        image_grid: Synthetic images by round, shown class and number, as bytes.
        image_counts: Number of synthetic images by round and class.
        target_prediction: Mean of the teacher's soft predictions on fresh windows of the final canvases, one row per
            target class; rows sum to 1, and are NaN for classes without images.
        class_affinity: The classes that the soft labels of the last round join; see `class_affinity`.
        synthesis_history: {"round", "shard", "step", "total", "classification", "batch_norm", "total_variation",
            "total_variation_l1", "l2"}: the weighted total and its unweighted terms.
        batch_norm_distances: Relative distance of the images' statistics to those of each BatchNorm layer of the
            teacher, by its name, in its order; empty without such layers.
        learning_history: The same while an engine learned what its shards share: {"step", "total", ...}; empty for one
            that learns nothing.
        slots: The choices of the search space.
        architecture: The found architecture, one operation per slot.
        search_training: Training of the supernet, or of networks alone, one record per epoch: {"epoch", "loss", ...}.
        search_curve: The strategy's own records: {"epoch", ...}; under "gates", one list of operation weights per
            slot draws their course.
        search_candidates: {"architecture", "macs", "score", "generation"}; empty for strategies that rate none.
        anytime: The true accuracy of what the search would have returned at each point of its course:
            {"epoch" or "generation", "true_accuracy"}; empty without a table of accuracies.
        retrain_history: {"epoch", "loss", "learning_rate", "agreement"}.
    """

    results: Mapping[str, Any]
    config_yaml: str
    class_names: Sequence[str]
    shown_classes: Sequence[int]
    image_grid: UInt8[Tensor, "rounds shown images channels height width"]
    image_counts: Int64[Tensor, "rounds classes"]
    target_prediction: Float[Tensor, "classes classes"]
    class_affinity: Float[Tensor, "classes classes"]
    synthesis_history: Sequence[Mapping[str, Any]]
    slots: Sequence[Slot]
    architecture: Architecture
    batch_norm_distances: Mapping[str, float] = field(default_factory=dict)
    learning_history: Sequence[Mapping[str, Any]] = ()
    search_training: Sequence[Mapping[str, Any]] = ()
    search_curve: Sequence[Mapping[str, Any]] = ()
    search_candidates: Sequence[Mapping[str, Any]] = ()
    anytime: Sequence[Mapping[str, Any]] = ()
    retrain_history: Sequence[Mapping[str, Any]] = ()
