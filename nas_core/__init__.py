"""The science of dfnas in plain PyTorch: teachers, synthesis, search spaces, strategies, training, evaluation.

Nothing here knows Prefect, Zarr or a path of a run: functions take tensors, plain values, a device and a
seeded generator, and return tensors and plain values.
"""
