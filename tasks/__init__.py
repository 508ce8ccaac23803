"""One step each: load, call nas_core, save, return a small manifest. Only here Prefect, storage and nas_core meet."""
