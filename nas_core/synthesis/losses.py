"""Losses that pull a batch of synthetic images towards the teacher's training distribution.

Each loss is a pure function of tensors: no hooks, no globals, no logging. Each is a mean or a root mean square
over the batch, so that a weight means the same at every batch size.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def soft_cross_entropy(
    logits: Float[Tensor, "batch classes"], targets: Float[Tensor, "batch classes"]
) -> Float[Tensor, " batch"]:
    """Cross-entropy of each image's prediction to its target distribution.

    Args:
        logits: The teacher's logits.
        targets: Class probabilities, rows summing to 1; one-hot rows give the usual cross-entropy.

    Returns:
        -sum_c targets_c log softmax(logits)_c in nats, >= 0.

    Source:
        Data-Free NAS, arXiv:2112.02086, recursive label calibration; its public code uses temperature 1.
    """
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1)


def total_variation_l2(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, ""]:
    """Unsquared L2 norm of neighbour differences, summed over four directions, root mean square over the batch.

    Args:
        x: Normalised images, at least 2x2.

    Returns:
        sum over horizontal, vertical and both diagonal differences d of ||d||_2 / sqrt(batch), >= 0. The public
        codes leave out the division, so their loss grows with the square root of the batch: multiply their weight
        by sqrt(their batch) to get ours.

    Source:
        DeepInversion, arXiv:1912.08795, R_TV, and the code of Data-Free NAS.
    """
    norms = torch.stack([torch.linalg.vector_norm(difference) for difference in _differences(x)])
    return norms.sum() / x.shape[0] ** 0.5


def total_variation_l1(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, ""]:
    """Mean absolute neighbour difference, summed over four directions.

    Args:
        x: Normalised images, at least 2x2.

    Returns:
        sum over horizontal, vertical and both diagonal differences d of mean |d|, >= 0.

    Source:
        The code of DeepInversion (arXiv:1912.08795) and of Data-Free NAS, which give it weight 0.
    """
    return torch.stack([difference.abs().mean() for difference in _differences(x)]).sum()


def _differences(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Differences of horizontal, vertical and both kinds of diagonal neighbours."""
    # Every slice costs its gradient a pass over a zeroed image, so the diagonals reuse these two.
    left, right = x[:, :, :, :-1], x[:, :, :, 1:]
    return (
        right - left,
        x[:, :, 1:] - x[:, :, :-1],
        right[:, :, 1:] - left[:, :, :-1],
        left[:, :, 1:] - right[:, :, :-1],
    )


def mean_image_norm(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, ""]:
    """Mean over the batch of each image's L2 norm, >= 0.

    Args:
        x: Normalised images.

    Source:
        DeepInversion, arXiv:1912.08795, R_l2, as computed by the public codes.
    """
    return torch.linalg.vector_norm(x.flatten(start_dim=1), dim=1).mean()


def statistics_distance(
    batch_mean: Float[Tensor, " channels"],
    batch_var: Float[Tensor, " channels"],
    running_mean: Float[Tensor, " channels"],
    running_var: Float[Tensor, " channels"],
) -> Float[Tensor, ""]:
    """Distance between a batch's channel statistics and those that one BatchNorm layer stored.

    Args:
        batch_mean: Mean of the layer's input over batch, height and width.
        batch_var: Biased variance of the same.
        running_mean: The teacher's stored mean, in the same units.
        running_var: The teacher's stored variance, in the same units squared.

    Returns:
        ||batch_mean - running_mean||_2 + ||batch_var - running_var||_2, >= 0.

    Source:
        R_feature of DeepInversion, arXiv:1912.08795, eq. 4.
    """
    return torch.linalg.vector_norm(batch_mean - running_mean) + torch.linalg.vector_norm(batch_var - running_var)


def statistics_size(
    running_mean: Float[Tensor, " channels"], running_var: Float[Tensor, " channels"]
) -> Float[Tensor, ""]:
    """How large the statistics are that one BatchNorm layer stored.

    The distance to them grows with the scale of the activations, which training is free to choose: divided by the sum
    of this over the same layers it can be compared between teachers.

    Args:
        running_mean: The teacher's stored mean.
        running_var: The teacher's stored variance.

    Returns:
        ||running_mean||_2 + ||running_var||_2: the distance of a batch whose statistics are all zero.
    """
    return torch.linalg.vector_norm(running_mean) + torch.linalg.vector_norm(running_var)


def mode_seeking(
    images: Float[Tensor, "batch channels height width"], latents: Float[Tensor, "batch latent"]
) -> Float[Tensor, ""]:
    """How little a generator's images differ for how much its latent vectors do.

    Args:
        images: Normalised images; number i of the first half and of the second are of the same class.
        latents: The vectors that they were drawn from.

    Returns:
        Mean over these pairs of (mean |difference of latents|) / (mean |difference of images|), > 0; large where a
        generator ignores its latents.

    Source:
        Mode Seeking GANs, arXiv:1903.05628, eq. 4 (public code: the inverse ratio, as here).
    """
    half = len(images) // 2
    apart = (images[:half] - images[half : 2 * half]).abs().flatten(start_dim=1).mean(dim=1)
    meant = (latents[:half] - latents[half : 2 * half]).abs().mean(dim=1)
    # The offset keeps the gradient of equal images finite; it is far below one grey level.
    return (meant / (apart + 1e-5)).mean()
