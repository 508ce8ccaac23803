"""What a run leaves on disk: directory layout, atomic files, manifests, checkpoints, and the Zarr dataset."""
