"""The result as a small table for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from nas_core.reporting.baselines import verdict
from nas_core.reporting.finetuned import finetuned_rows
from nas_core.reporting.imported import imported_sentence
from nas_core.reporting.wording import amount, duration, milliseconds, percent

BESIDE_THE_STUDENT = ("baselines", "finetuning")
"""What `timings` has of work that the student owes nothing to."""


def comparison(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Teacher beside student: rows of (quantity, teacher, student); a dash where there is nothing to say.

    Args:
        results: See `nas_core.reporting.records.RunRecords`; "macs" and "params" of the teacher and "latency" are
            optional.
    """
    teacher, student = results["teacher"], results["student"]
    rows = [
        ("top-1 on real images", percent(teacher["top1"]), percent(student["top1"])),
        ("agreement with the teacher", "-", percent(student["agreement"])),
        ("multiply-accumulates", amount(teacher.get("macs")), amount(student["macs"])),
        ("parameters", amount(teacher.get("params")), amount(student["params"])),
    ]
    if results.get("latency"):
        images = results["latency"]["batch_size"]
        for name, title in (("latency_ms", "latency, 1 image"), ("batch_latency_ms", f"latency, {images} images")):
            rows.append((title, milliseconds(teacher[name]), milliseconds(student[name])))
    return rows


def machine(results: Mapping[str, Any]) -> str:
    """Where and how the latencies were measured."""
    where = results["latency"]
    threads = f", {where['threads']} threads" if where["device"] == "cpu" else ""
    return f"{where['processor']} ({where['device']}{threads}), median of forward passes in float32"


def computing_seconds(results: Mapping[str, Any]) -> float:
    """Time that the pieces of work behind the student took, added up: neither baselines nor fine-tuning are in it."""
    timings = results["timings"]
    return timings["total"] - sum(timings.get(name, 0.0) for name in BESIDE_THE_STUDENT)


def retraining(results: Mapping[str, Any]) -> str:
    """How the student was trained: epochs, style, and its size if that is not the search's."""
    settings = results["retrain"]
    words = [f"{settings['epochs']} epochs", f"style {settings['style']}"]
    if settings["width"] != 1:
        words.append(f"{settings['width']:g} times the channels of the search")
    if settings["cells"] is not None:
        words.append(f"{settings['cells']} cells")
    return ", ".join(words)


def summary_lines(results: Mapping[str, Any]) -> list[str]:
    """The comparison as aligned lines, then the architecture and the time it took."""
    rows = [("", "teacher", "student"), *comparison(results)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = [
        f"{quantity:<{widths[0]}}  {teacher:>{widths[1]}}  {student:>{widths[2]}}"
        for quantity, teacher, student in rows
    ]
    time = duration(computing_seconds(results))
    tuned = [f"fine-tuned, {quantity}: {value}" for quantity, value in finetuned_rows(results)]
    worth = [f"was the search worth it? {verdict(results)}"] if results["baselines"] else []
    imported = filter(None, [imported_sentence(results)])
    found = f"architecture: {results['search']['architecture']}"
    return [*table, *tuned, *worth, *imported, found, f"computing time: {time}"]


def quality_rows(quality: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The data-free measures of the images in words: rows of (measure, value), those without a value left out.

    Args:
        quality: `DatasetQuality.figures()`.
    """
    rows = [
        ("images judged", f"{quality['images']:,}"),
        ("teacher's top-1 on the classes asked for", percent(quality["teacher_top1"])),
        ("verifier's top-1 on the classes asked for", percent(quality["verifier_top1"])),
        ("rarest class, as a share of the images asked for", percent(quality["rarest_class"])),
        ("teacher's mean confidence", percent(quality["confidence"])),
        ("mean entropy of its predictions", f"{quality['entropy']:.3g} nats"),
        ("five likeliest classes shared by target and prediction", percent(quality["top5_overlap"])),
        ("rank correlation of target and prediction", _number(quality["rank_correlation"])),
        ("relative BatchNorm distance, mean over layers", _number(quality["batch_norm_distance"])),
        ("relative BatchNorm distance, largest layer", _number(quality["batch_norm_distance_largest"])),
        ("mean cosine distance of features within a class", _number(quality["within_class_distance"])),
        ("images with a near-duplicate", percent(quality["near_duplicates"])),
        ("pixels clipped to black or white", percent(quality["clipped_pixels"])),
    ]
    return [(measure, value) for measure, value in rows if value != "-"]


def layer_rows(distances: Mapping[str, float]) -> list[tuple[str, str]]:
    """The BatchNorm distance of each layer in words, in rows as of `quality_rows`.

    Args:
        distances: `DatasetQuality.batch_norm_distances`.
    """
    return [(f"relative BatchNorm distance, layer {name}", _number(value)) for name, value in distances.items()]


def label_rows(rounds: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What each round of calibration did to the labels, in words: rows of (round, figures).

    Args:
        rounds: {"round", "label_entropy", "label_confidence", "top1_drift", "top5_overlap"}; see `label_changes`.
    """
    return [
        (
            f"labels of round {record['round']}",
            f"entropy {record['label_entropy']:.3g} nats, largest probability {percent(record['label_confidence'])}, "
            f"top-1 drift {percent(record['top1_drift'])}, top-5 overlap {percent(record['top5_overlap'])}",
        )
        for record in rounds
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
