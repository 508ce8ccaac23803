"""Before the first run: a config that fits a teacher, and what a run will take on this machine."""

import warnings
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from nas_core.config import RunConfig
from nas_core.device import resolve_device
from nas_core.errors import InputError
from nas_core.estimation import Estimate, estimate
from nas_core.proposal import propose, run_name
from nas_core.registry import Spec
from nas_core.reporting.wording import byte_size, duration
from nas_core.teachers import teachers
from nas_core.teachers.torchvision_source import one_of
from nas_core.teachers.weights import read_state_dict, without_prefix
from storage.files import free_space
from tasks.building import build_space, load_teacher, preflight
from tasks.real_data import named_images

LONG_SECONDS = 2 * 3600  # of synthesis; more than most people want to wait for a first look


def proposed_config(teacher: str, weights: str | None, more: dict[str, Any], device: str = "auto") -> RunConfig:
    """A config that fits a teacher.

    Args:
        teacher: "torchvision:NETWORK", "timm:NETWORK", "reference:NETWORK", or "module:callable" that builds a network.
        weights: A weights file; for torchvision also the name of pretrained weights; None: the pretrained ones.
        more: Further fields of the teacher's section.
        device: Where the run will happen, as in a config.

    Raises:
        InputError: If the teacher cannot be loaded, or too little is known of it.
    """
    values = teacher_section(teacher, weights) | more
    try:
        spec: Spec = teachers.spec(values["name"]).model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(_complaint(detail) for detail in error.errors())
        raise InputError(f"more has to be said of the teacher '{teacher}': {wrong}") from error
    return propose(run_name(teacher.rpartition(":")[2]), spec, load_teacher(spec, device))


def teacher_section(teacher: str, weights: str | None) -> dict[str, Any]:
    """The config section that a teacher on the command line stands for, as far as it says."""
    source, colon, network = teacher.partition(":")
    if not colon or not source or not network:
        raise InputError(
            f"--teacher {teacher} is not of the form torchvision:NETWORK, timm:NETWORK, reference:NETWORK or "
            "MODULE:CALLABLE, such as torchvision:resnet18"
        )
    if source == "torchvision":
        return _torchvision(network, weights)
    if source not in ("timm", "reference"):
        section = {"name": "checkpoint", "factory": teacher}
    else:
        section = {"name": source, "network": network}
    return section | ({} if weights is None else {"weights": weights})


def _torchvision(network: str, weights: str | None) -> dict[str, Any]:
    """Pretrained weights by name; or, with a file, the same network as a checkpoint with their preprocessing."""
    from torchvision import models

    known = one_of("torchvision network", network, models.list_models(module=models))
    entries = models.get_model_weights(known)
    if weights is None:
        return {"name": "torchvision", "network": known}
    path = Path(weights).expanduser()
    if not path.exists() and weights in entries.__members__:
        return {"name": "torchvision", "network": known, "weights": weights}
    blank = _blank(models, known)
    classes = _class_count(blank, known, path)
    # A network that can turn its input into another preprocessing does so with pretrained weights alone, unless asked.
    own_preprocessing = {"transform_input": True} if hasattr(blank, "transform_input") else {}
    preprocessing = entries.__members__["DEFAULT"].transforms()
    return {
        "name": "checkpoint",
        "factory": f"torchvision.models:{known}",
        "arguments": {"num_classes": classes, **own_preprocessing},
        "weights": weights,
        "input_shape": [3, preprocessing.crop_size[0], preprocessing.crop_size[0]],
        "mean": list(map(float, preprocessing.mean)),
        "std": list(map(float, preprocessing.std)),
        "num_classes": classes,
    }


def _blank(models: Any, network: str) -> nn.Module:
    """A torchvision network without values."""
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):  # of weights that have no values here
        return models.get_model(network, weights=None)


def _class_count(blank: nn.Module, network: str, weights: Path) -> int:
    """Length of a torchvision network's last layer in a weights file, whose own order may be any."""
    *_, last = dict(blank.named_parameters())
    state = without_prefix(read_state_dict(weights), last)
    if last not in state:
        raise InputError(f"'{weights}' has no '{last}', the last layer of {network}: it is of another network")
    return len(state[last])


def _complaint(detail: Any) -> str:
    """One of pydantic's errors, with the option that answers it."""
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        return f"give --set teacher.{key}=VALUE" if key != "weights" else "give --weights FILE"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"]).replace("class_names or num_classes", "--set teacher.num_classes=NUMBER")
    return f"teacher.{key}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def estimate_run(config: RunConfig) -> Estimate:
    """What a run of a valid config will take here, measured in about ten seconds."""
    preflight(config)
    teacher = load_teacher(config.teacher, config.device)
    real = named_images(config, teacher)
    space = build_space(config.search.space, teacher)
    return estimate(config, teacher, space, real.get("finetune.data"), real.get("evaluation.data"))


def estimate_lines(config: RunConfig, there: Estimate, directory: Path) -> list[str]:
    """An estimate in words, with what is too much for this machine said so.

    Args:
        config: The config.
        there: Its estimate.
        directory: The run directory to be, or any folder on its disk.
    """
    parts = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in there.seconds.items())
    free = free_space(directory)
    device = resolve_device(config.device)
    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device}, {torch.get_num_threads()} threads"
    )
    lines = [
        f"time:   about {duration(there.total)} on {name} ({parts})",
        f"memory: about {byte_size(there.memory)} of {byte_size(there.memory_there)}",
        f"disk:   about {byte_size(there.disk)}, {byte_size(free)} are free",
    ]
    if there.seconds["synthesis"] > LONG_SECONDS:
        lines.append(
            "the synthesis is long for a first run: try fewer classes, such as --set 'synthesis.classes=[0, 1, 2, 3]', "
            "with fewer synthesis.shards, or a GPU"
        )
    if device.type == "cuda" and getattr(config.synthesis.engine, "compile", None) is False:
        lines.append("compiled code can be several times faster on a GPU: compare --set synthesis.engine.compile=true")
    if there.memory > there.memory_there:
        lines.append("the memory will not do: lower synthesis.batch_size, search.batch_size or synthesis.shards")
    if there.disk > free:
        lines.append("the disk will not do: lower synthesis.shards, or choose --run-dir on another disk")
    return lines
