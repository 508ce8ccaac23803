"""Training by distillation: batches, the loss, the one loop, and retraining."""
