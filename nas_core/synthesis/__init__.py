"""Recovery of training images from a teacher: losses, labels, schedules, and the engine that optimises pixels."""
