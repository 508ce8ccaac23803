"""Pretrained classifiers and where they come from; importing this package registers every source by name."""

from nas_core.teachers import checkpoint, reference, timm_source, torchvision_source
from nas_core.teachers.teacher import Teacher, teachers

__all__ = ["Teacher", "checkpoint", "reference", "teachers", "timm_source", "torchvision_source"]
