"""The settings of retraining, and how the papers of each kind of space set them."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from pydantic import Field, model_validator

from nas_core.training.recipe import Recipe

Style: TypeAlias = Literal["plain", "darts", "mobile"]

# What each style changes. In all of them the target is the teacher's prediction, at a temperature: the label smoothing
# of the mobile papers softens hard labels, of which there are none here.
STYLES: dict[Style, dict[str, Any]] = {
    "plain": {},
    # DARTS, arXiv:1806.09055, section 3.1, CIFAR-10.
    "darts": {
        "epochs": 600,
        "batch_size": 96,
        "learning_rate": 0.025,
        "warmup_epochs": 0,
        "weight_decay": 3e-4,
        "nesterov": False,
        "drop_path": 0.2,
        "auxiliary_weight": 0.4,
        "cutout": 16,
        "mixup": 0.0,
    },
    # The steps of ProxylessNAS, arXiv:1812.00332; crops and averaged weights of MobileNetV3, arXiv:1905.02244.
    "mobile": {
        "epochs": 300,
        "batch_size": 256,
        "learning_rate": 0.05,
        "warmup_epochs": 5,
        "weight_decay": 4e-5,
        "crop_scale": 0.08,
        "average_decay": 0.9999,
        "mixup": 0.0,
    },
}


class RetrainConfig(Recipe):
    """Train the found architecture from scratch on the synthetic images by distillation."""

    style: Style = Field(
        default="plain",
        description="where the defaults of this section come from: plain (those below), darts (drop-path, auxiliary "
        "classifier and cutout, for cells) or mobile (scaled crops and averaged weights, for rows of blocks)",
    )
    batch_size: int = Field(default=64, ge=2, description="images per batch")
    # As in the public codes of CMI (arXiv:2105.08584) and FastDFKD (arXiv:2112.06253); measured in docs/retraining.md.
    temperature: float = Field(
        default=20.0,
        gt=0,
        description="temperature of the distillation loss; a high one asks for the teacher's logits themselves, a low "
        "one for the class that it prefers; with hundreds of classes 5 or less",
    )
    width: float = Field(
        default=1.0,
        gt=0,
        le=32,
        description="factor on the channels of the retrained network, which may then cost more than search.max_macs",
    )
    cells: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="cells of the retrained network, counted as the space does; null: as in the search",
    )
    drop_path: float = Field(
        default=0.0, ge=0, lt=1, description="rate of dropped paths that training ramps up to, linearly by epoch"
    )
    auxiliary_weight: float = Field(
        default=0.0, ge=0, le=1, description="weight of the loss of a second classifier amid the network; 0: none"
    )
    cutout: int = Field(
        default=0, ge=0, description="side in pixels of the square that every training image loses; 0: none"
    )
    mixup: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="chance of a training image to be a weighted mean of two, which the teacher labels; 0: none are",
    )
    color_jitter: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="how much brightness, contrast, saturation and tint of every training image vary; the teacher "
        "labels what comes out. 0: not at all",
    )
    crop_scale: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="smallest share of a canvas that a crop may have, which is then scaled to the input's size; null: "
        "windows of the input's size, not scaled",
    )
    average_decay: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the moving average of the weights that a step keeps; the average is the result. 0: the "
        "last weights are",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Put the style's settings where none are given; a style's name alone stands for all of them."""
        if isinstance(values, str):
            values = {"style": values}
        style = values.get("style") if isinstance(values, Mapping) else None
        return {**STYLES[style], **values} if isinstance(style, str) and style in STYLES else values
