"""Pretrained classifiers and where they come from; importing this package registers what builds them."""

from nas_core.settings.teachers import teachers
from nas_core.teachers import checkpoint, reference, timm_source, torchvision_source
from nas_core.teachers.teacher import Teacher

__all__ = ["Teacher", "checkpoint", "reference", "teachers", "timm_source", "torchvision_source"]
