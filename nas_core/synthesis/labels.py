"""Targets of synthesis: balanced one-hot classes in round 0, the teacher's soft predictions afterwards."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot as integer_one_hot

from nas_core.errors import InputError
from nas_core.seeding import generator


def chosen_classes(classes: Sequence[int | str] | None, class_names: Sequence[str]) -> Int64[Tensor, " chosen"]:
    """The class indices that a config chooses, in its order.

    Args:
        classes: Indices (integers) or names (strings); None: all.
        class_names: The teacher's.

    Raises:
        InputError: If a class is unknown, ambiguous or given twice.
    """
    if classes is None:
        return torch.arange(len(class_names))
    indices = [_class_index(choice, class_names) for choice in classes]
    if len(set(indices)) < len(indices):
        raise InputError(f"synthesis.classes = {list(classes)} has a class twice; give each once")
    return torch.tensor(indices)


def _class_index(choice: int | str, class_names: Sequence[str]) -> int:
    if isinstance(choice, int):
        if not 0 <= choice < len(class_names):
            raise InputError(
                f"synthesis.classes has {choice}, but the teacher's class indices are 0 to {len(class_names) - 1}"
            )
        return choice
    found = [index for index, name in enumerate(class_names) if name == choice]
    if len(found) != 1:
        known = ", ".join(class_names[:20]) + (", ..." if len(class_names) > 20 else "")
        problem = "no class of the teacher" if not found else f"the name of {len(found)} classes: give an index"
        raise InputError(f"synthesis.classes has '{choice}', which is {problem} (its classes: {known})")
    return found[0]


def shard_classes(run_seed: int, shard: int, batch_size: int, num_classes: int) -> Int64[Tensor, " batch"]:
    """The class of each image of a shard in round 0.

    Images are numbered through the shards, and every run of `num_classes` consecutive numbers is one random
    permutation of all classes: classes are balanced over the run, distinct within a batch whose size divides their
    number, and a shard needs no other shard to know its own.

    Args:
        run_seed: The run's seed.
        shard: Number of the shard, >= 0.
        batch_size: Images per shard.
        num_classes: Number of classes.

    Source:
        Data-Free NAS, arXiv:2112.02086: batches of distinct classes from one permutation of all.
    """
    first, last = shard * batch_size, (shard + 1) * batch_size
    blocks = range(first // num_classes, (last - 1) // num_classes + 1)
    permutations = [
        torch.randperm(num_classes, generator=generator(run_seed, "synthesis.classes", block)) for block in blocks
    ]
    start = first - blocks[0] * num_classes
    return torch.cat(permutations)[start : start + batch_size]


def one_hot(classes: Int64[Tensor, " batch"], num_classes: int) -> Float[Tensor, "batch classes"]:
    """Probability one on each image's class."""
    return integer_one_hot(classes, num_classes).float()


def soft_predictions(logits: Float[Tensor, "batch classes"], temperature: float) -> Float[Tensor, "batch classes"]:
    """softmax(logits / temperature): what a round hands to the next as targets.

    Args:
        logits: The teacher's logits.
        temperature: > 0; above 1 it gives related classes more mass. The paper uses 1.

    Source:
        Data-Free NAS, arXiv:2112.02086, recursive label calibration.
    """
    return (logits.float() / temperature).softmax(dim=1)


def entropy(probabilities: Float[Tensor, "images classes"]) -> Float[Tensor, " images"]:
    """-sum_c p_c log p_c of each row in nats, in [0, log(classes)]."""
    return torch.special.entr(probabilities).sum(dim=1)


def top1_drift(before: Float[Tensor, "images classes"], after: Float[Tensor, "images classes"]) -> float:
    """Share of images whose likeliest class changed, in [0, 1]."""
    return float((before.argmax(dim=1) != after.argmax(dim=1)).float().mean())


def top_overlap(
    before: Float[Tensor, "images classes"], after: Float[Tensor, "images classes"], most: int = 5
) -> float | None:
    """Mean share of each image's likeliest classes that are among its likeliest classes afterwards too.

    Args:
        before: Class probabilities. One-hot rows rank no classes but one, and are left out.
        after: Class probabilities, or anything that ranks the classes like them.
        most: How many classes count as likeliest; at most half of all, since more would agree by themselves.

    Returns:
        A share in [0, 1]; None if no row is left.
    """
    count = max(1, min(most, before.shape[1] // 2))
    ranked = (before > 0).sum(dim=1) > 1
    if not ranked.any():
        return None
    first, second = (p[ranked].topk(count, dim=1).indices for p in (before, after))
    shared = (first.unsqueeze(2) == second.unsqueeze(1)).any(dim=2)
    return float(shared.float().mean())


def label_changes(
    targets: Float[Tensor, "images classes"], soft_labels: Float[Tensor, "images classes"]
) -> dict[str, float | None]:
    """How a round of calibration changed the labels of its images.

    Args:
        targets: Class probabilities that the images were made for.
        soft_labels: Those that the teacher found in them, the next round's targets.

    Returns:
        "label_entropy" of the soft labels (mean, nats), their "label_confidence" (mean of the largest probability),
        "top1_drift" and "top5_overlap" against the targets; the overlap is None for one-hot targets.
    """
    return {
        "label_entropy": float(entropy(soft_labels).mean()),
        "label_confidence": float(soft_labels.amax(dim=1).mean()),
        "top1_drift": top1_drift(targets, soft_labels),
        "top5_overlap": top_overlap(targets, soft_labels),
    }
