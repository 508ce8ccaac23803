"""How good the found network is: against the teacher on synthetic images, against labels on real ones."""
