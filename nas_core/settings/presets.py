"""Published methods as rows of one table: what each changes in `DifferentiableSpec` (or in another strategy's spec).

A preset is chosen by its name, and any field of it may be overridden: {name: sdarts-adv, epochs: 20,
perturbation: {growth: 0.5}} keeps everything else of the preset, inside the section too.
"""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

from pydantic import create_model, model_validator

from nas_core.registry import Spec
from nas_core.settings.differentiable import DifferentiableSpec
from nas_core.settings.strategies import (
    AZ_NAS,
    ProxylessSpec,
    SposSpec,
    SuccessiveHalvingSpec,
    TrainingFreeSpec,
    strategies,
)

Settings = Mapping[str, Any]

RANDOM = {"perturbation": {"kind": "random"}}
ADVERSARIAL = {"perturbation": {"kind": "adversarial"}}
PC_DARTS = {
    "partial": {"divisor": 4, "edge_normalisation": True},
    "learning_rate": 0.1,
    "final_learning_rate": 0.0,
    "alpha_learning_rate": 6e-4,
    "alpha_start": 0.3,
}
P_DARTS = {
    "epochs": 25,
    "progression": {
        "stages": [
            {"extra_cells": 0, "skip_dropout": 0.0},
            {"extra_cells": 6, "operations": 5, "skip_dropout": 0.4},
            {"extra_cells": 12, "operations": 3, "skip_dropout": 0.7},
        ],
        "skip_cap": 2,
        "none_allowed": False,
    },
    "final_learning_rate": 0.0,
    "alpha_learning_rate": 6e-4,
    "alpha_gradient_clip": 5.0,
    "alpha_start": 0.4,
}

# Name: (what it is, what it changes in the settings of first-order DARTS).
TABLE: dict[str, tuple[str, Settings]] = {
    "darts": ("DARTS (Liu et al. 2019), first order: mix all operations and learn the mixture.", {}),
    "darts-2nd": (
        "DARTS (Liu et al. 2019), second order: alpha learns through the weights' next step.",
        {"order": "second"},
    ),
    "sdarts-rs": ("SDARTS-RS (Chen and Hsieh 2020): weights learn at a random perturbation of the mixture.", RANDOM),
    "sdarts-adv": ("SDARTS-ADV (Chen and Hsieh 2020): weights learn at the worst mixture near by.", ADVERSARIAL),
    "pc-darts": ("PC-DARTS (Xu et al. 2020): a quarter of the channels is searched, edges are weighted.", PC_DARTS),
    "pc-darts-rs": ("PC-DARTS whose weights learn at a random perturbation of the mixture.", PC_DARTS | RANDOM),
    "pc-darts-adv": ("PC-DARTS whose weights learn at the worst mixture near by.", PC_DARTS | ADVERSARIAL),
    "p-darts": ("P-DARTS (Chen et al. 2019): three stages, each deeper and with fewer operations.", P_DARTS),
    "p-darts-rs": ("P-DARTS whose weights learn at a random perturbation of the mixture.", P_DARTS | RANDOM),
    "p-darts-adv": ("P-DARTS whose weights learn at the worst mixture near by.", P_DARTS | ADVERSARIAL),
    "darts-es": (
        "DARTS-ES (Zela et al. 2020): ends, and goes back, when the validation loss becomes too curved.",
        {"order": "second", "stopping": {"rule": "hessian"}, "hessian_every": 2},
    ),
    "r-darts-l2": (
        "R-DARTS L2 (Zela et al. 2020): five runs of rising weight decay, of which the best is kept.",
        {"order": "second", "grid": [{"weight_decay": decay} for decay in (3e-4, 9e-4, 27e-4, 81e-4, 243e-4)]},
    ),
    "r-darts-dp": (
        "R-DARTS DP (Zela et al. 2020): four runs of rising drop-path, of which the best is kept.",
        {
            "order": "second",
            "grid": [{"regularisation": {}}]
            + [{"regularisation": {"drop_path": drop, "cutout": 1.0}} for drop in (0.2, 0.4, 0.6)],
        },
    ),
    "nasp": (
        "NASP (Yao et al. 2020): the best operation runs alone, a proximal step moves all.",
        {"relaxation": "one-hot"},
    ),
}

# Name: (base, what it is, what it changes).
OTHERS: dict[str, tuple[type[Spec], str, Settings]] = {
    "random": (
        SuccessiveHalvingSpec,
        "Random search (Li and Talwalkar 2019): random architectures are trained alone and rated; no supernet.",
        {"architectures": 10, "rungs": 1, "epochs": 10, "prior": None},
    ),
    "az-nas": (
        TrainingFreeSpec,
        "Evolution by AZ-NAS's four scores of untrained networks (Lee and Ham 2024), on noise.",
        {"scores": AZ_NAS},
    ),
    "naswot": (
        TrainingFreeSpec,
        "Evolution by naswot (Mellor et al. 2021): how differently images switch an untrained network's ReLUs.",
        {"scores": ("naswot",), "images": 128},
    ),
    "zico": (
        TrainingFreeSpec,
        "Evolution by ZiCo (Li et al. 2023): how large and steady an untrained network's gradients are.",
        {"scores": ("zico",)},
    ),
    "synflow": (
        TrainingFreeSpec,
        "Evolution by synflow (Tanaka et al. 2020): the saliency of an untrained network's weights; sees no image.",
        {"scores": ("synflow",)},
    ),
    "random-ws": (
        SposSpec,
        "Random search with weight sharing (Li and Talwalkar 2019): random paths of one supernet are rated.",
        {"population": 1000, "generations": 1, "crossovers": 0, "mutants": 0},
    ),
    "proxyless-rl": (
        ProxylessSpec,
        "ProxylessNAS (Cai et al. 2019) with REINFORCE: alpha learns from rewards of sampled paths.",
        {"update": "reinforce"},
    ),
}


def preset(base: type[Spec], name: str, summary: str, settings: Settings) -> type[Spec]:
    """A spec of a published method: its base with other defaults.

    Args:
        base: The spec of the strategy that runs it.
        name: What a config calls it.
        summary: Its docstring, one line.
        settings: What differs from the base; sections as mappings of what differs in them.
    """
    validated = base.model_validate(dict(settings))
    fields: dict[str, Any] = {
        key: (base.model_fields[key].annotation, _with_default(base, key, getattr(validated, key))) for key in settings
    }
    fields["name"] = (Literal[name], name)
    made = create_model(f"{name.title().replace('-', '')}Spec", __base__=(Preset, base), __doc__=summary, **fields)
    made = cast(type[Preset], made)
    made.settings = settings
    return made


class Preset(Spec):
    """Fills in what a config leaves out of a section that the preset changes."""

    settings: ClassVar[Settings] = {}

    @model_validator(mode="before")
    @classmethod
    def _inside_sections_too(cls, values: Any) -> Any:
        return _merged(cls.settings, values) if isinstance(values, Mapping) else values


def _merged(settings: Settings, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values over settings, section by section."""
    merged = {**settings, **values}
    for key in settings.keys() & values.keys():
        if isinstance(settings[key], Mapping) and isinstance(values[key], Mapping):
            merged[key] = _merged(settings[key], values[key])
    return merged


def _with_default(base: type[Spec], key: str, value: Any) -> Any:
    """A field as the base describes it, with another default."""
    field = copy.copy(base.model_fields[key])
    field.default = value
    return field


for _name, (_summary, _settings) in TABLE.items():
    strategies.declare(preset(DifferentiableSpec, _name, _summary, _settings))
for _name, (_spec, _summary, _settings) in OTHERS.items():
    strategies.declare(preset(_spec, _name, _summary, _settings))
