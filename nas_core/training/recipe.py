"""The settings of the training loop, as a config section of its own or part of a strategy's."""

from pydantic import Field, model_validator

from nas_core.registry import Spec
from nas_core.schedule import warmup_cosine
from nas_core.settings.precision import Precision


class Recipe(Spec):
    """SGD with momentum 0.9; the learning rate rises linearly, then falls along a cosine."""

    epochs: int = Field(default=100, ge=1, description="passes over the training images")
    learning_rate: float = Field(default=0.1, gt=0, description="peak learning rate, reached after the warm-up")
    final_learning_rate: float = Field(default=0.0, ge=0, description="learning rate that the cosine ends at")
    warmup_epochs: int = Field(
        default=2, ge=0, description="epochs of linear warm-up before the cosine; fewer than epochs"
    )
    weight_decay: float = Field(
        default=5e-4,
        ge=0,
        description="L2 penalty on the weights of convolutions and linear layers, not on biases or BatchNorm",
    )
    nesterov: bool = Field(default=True, description="whether momentum looks ahead (Nesterov's); false: plain momentum")
    gradient_clip: float = Field(
        default=5.0, gt=0, description="largest L2 norm of the gradient of all weights together"
    )
    precision: Precision = Field(
        default="auto",
        description="arithmetic of network and teacher in training; auto: bfloat16 where the device has it in "
        "hardware, else float32; weights and their updates are float32 in any case",
    )

    @model_validator(mode="after")
    def _schedule_makes_sense(self) -> "Recipe":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs = {self.warmup_epochs} must be smaller than epochs = {self.epochs}")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate = {self.final_learning_rate} must not exceed learning_rate = {self.learning_rate}"
            )
        return self

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, counted from 0 over all epochs.

        A pure function: a resumed run needs no scheduler state.
        """
        factor = warmup_cosine(step, self.epochs * steps_per_epoch, self.warmup_epochs * steps_per_epoch)
        if step < self.warmup_epochs * steps_per_epoch:
            return self.learning_rate * factor
        return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * factor


class FinetuneRecipe(Recipe):
    """Train the student further on labelled real images: a result beside the student, and not data-free."""

    epochs: int = Field(default=10, ge=1, description="passes over the real images")
    learning_rate: float = Field(default=0.01, gt=0, description="peak learning rate, reached after the warm-up")
    warmup_epochs: int = Field(
        default=1, ge=0, description="epochs of linear warm-up before the cosine; fewer than epochs"
    )
    batch_size: int = Field(default=64, ge=2, description="images per batch")
    label_smoothing: float = Field(
        default=0.1, ge=0, lt=1, description="share of each label's probability that is spread over all classes"
    )
