"""The settings of search strategies; those of differentiable search are in `differentiable`."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from nas_core.registry import Registry, Spec
from nas_core.training.recipe import Recipe

if TYPE_CHECKING:
    from nas_core.strategies.base import Strategy

strategies: "Registry[Strategy]" = Registry("strategy", builders="nas_core.strategies")

PathSampling = Literal["uniform", "mac-bins", "fair"]
Score = Literal["naswot", "synflow", "zico", "expressivity", "progressivity", "trainability"]
# What a network costs is a score too: the more the better, see `nas_core.evaluation.zero_cost`.
Cost = Literal["macs", "parameters"]
Rated = Literal[Score, Cost]
Images = Literal["noise", "synthetic"]
Inputs = Literal["published", Images]
Decay = Annotated[float, Field(ge=0, lt=1)]

AZ_NAS: tuple[Rated, ...] = ("expressivity", "progressivity", "trainability", "macs")


class EvolutionSpec(Spec):
    """How many architectures a generation has, and where they come from."""

    population: int = Field(default=50, ge=1, description="architectures rated per generation")
    generations: int = Field(default=20, ge=1, description="generations, the random first one included")
    parents: int = Field(
        default=10, ge=1, description="best architectures so far from which the next generation descends"
    )
    crossovers: int = Field(default=25, ge=0, description="architectures per generation that combine two parents")
    mutants: int = Field(default=25, ge=0, description="architectures per generation that mutate one parent")
    mutation_probability: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="chance of each decision of a mutant (a slot, or slots that go together) to be redrawn",
    )

    @model_validator(mode="after")
    def _children_fit_the_population(self) -> "EvolutionSpec":
        if self.crossovers + self.mutants > self.population:
            raise ValueError(
                f"crossovers + mutants = {self.crossovers + self.mutants} must not exceed "
                f"population = {self.population}"
            )
        return self


class ScoresSpec(Spec):
    """Which training-free scores, and on how many images."""

    scores: tuple[Rated, ...] = Field(
        default=(*AZ_NAS, "naswot"),
        min_length=1,
        description="scores whose ranks are put together; by default the four of AZ-NAS, and naswot",
    )
    images: int = Field(
        default=64,
        ge=4,
        description="images that every architecture is scored on (64 in AZ-NAS's code, 128 in naswot's); of synthetic "
        "ones no more than the full batches of one epoch",
    )
    inputs: Inputs = Field(
        default="published",
        description="what these are; noise: standard normal pixels; synthetic: some of the synthetic images; "
        "published: for each score what its paper took, which is noise for AZ-NAS and images for naswot and zico",
    )


@strategies.declare
class TrainingFreeSpec(EvolutionSpec, ScoresSpec):
    """Training-free search: evolution by scores of untrained networks (AZ-NAS's and naswot)."""

    name: Literal["training-free"] = "training-free"


class PriorSpec(ScoresSpec):
    """Where a search starts: at the best of many random architectures, by training-free scores."""

    pool: int = Field(default=200, ge=1, description="random architectures of which the best are taken")


@strategies.declare
class SposSpec(EvolutionSpec, Recipe):
    """Single Path One-Shot (Guo et al. 2020): single-path training, then evolutionary search."""

    name: Literal["spos"] = "spos"
    learning_rate: float = Field(
        default=0.05, gt=0, description="peak learning rate of the supernet, after the warm-up"
    )
    warmup_epochs: int = Field(
        default=0, ge=0, description="epochs of linear warm-up before the cosine; fewer than epochs"
    )
    weight_decay: float = Field(default=4e-5, ge=0, description="L2 penalty on convolution and linear weights")
    sampling: PathSampling = Field(
        default="uniform",
        description="paths of a training step; uniform: one; mac-bins: one of a cost drawn uniformly; fair: several, "
        "which hold every operation of a slot once",
    )
    mac_bins: int = Field(default=7, ge=1, description="bins of cost that paths are drawn from; mac-bins only")
    recalibration_batches: int = Field(
        default=20, ge=1, description="training batches that give each candidate its own BatchNorm statistics"
    )
    prior: PriorSpec | None = Field(
        default=None, description="training-free scores that choose the first generation; null: it is random"
    )
    training_free: ScoresSpec | None = Field(
        default=None,
        description="training-free scores of every candidate, whose ranks are put together with the rank that the "
        "supernet gives it; null: the supernet decides alone",
    )


# By the update of ProxylessNAS's architecture weights, the settings that only it knows.
ONLY: dict[str, tuple[str, ...]] = {
    "two-path": ("cost_loss", "cost_factor", "cost_power"),
    "reinforce": ("samples", "reward_exponent", "baseline_decay"),
}


@strategies.declare
class ProxylessSpec(Recipe):
    """ProxylessNAS (Cai et al. 2019): one sampled path runs; alpha learns by the two-path gradient."""

    name: Literal["proxyless"] = "proxyless"
    epochs: int = Field(default=160, ge=1, description="passes over the training images")
    learning_rate: float = Field(default=0.05, gt=0, description="peak learning rate of the supernet's weights")
    warmup_epochs: int = Field(
        default=0, ge=0, description="epochs of linear warm-up before the cosine; fewer than epochs"
    )
    weight_decay: float = Field(default=4e-5, ge=0, description="L2 penalty on convolution and linear weights")
    alpha_learning_rate: float = Field(
        default=1e-3, gt=0, description="learning rate of Adam for the architecture weights"
    )
    alpha_betas: tuple[Decay, Decay] = Field(
        default=(0.0, 0.999),
        description="decay rates of Adam's two moments for the architecture weights, each in [0, 1)",
    )
    alpha_start: float = Field(
        default=0.25, ge=0, lt=1, description="share of the epochs in which the network's weights learn alone"
    )
    alpha_every: int = Field(default=5, ge=1, description="weight steps per step of the architecture weights")
    update: Literal["two-path", "reinforce"] = Field(
        default="two-path",
        description="two-path: the gradient of two sampled operations per slot; reinforce: rewards of sampled paths",
    )
    cost_loss: Literal["none", "mul-log", "add-linear"] = Field(
        default="mul-log",
        description="how the expected cost E (latency in ms with search.latency_table, else what search limits, by "
        "default multiply-accumulates) enters the loss of two-path, against its limit R (the dearest architecture "
        "without one); mul-log: factor x loss x (log E / log R)^power; add-linear: loss + factor x (E - R) / R",
    )
    cost_factor: float | None = Field(
        default=None, gt=0, description="the factor in cost_loss; null: as published, 0.2 in mul-log, 0.1 in add-linear"
    )
    cost_power: float = Field(default=0.3, ge=0, description="the power in cost_loss mul-log")
    samples: int = Field(default=10, ge=1, description="paths per step of reinforce")
    reward_exponent: float = Field(
        default=0.1, ge=0, description="reinforce: the reward is agreement x (R / cost)^exponent"
    )
    baseline_decay: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="reinforce: what remains of the baseline after a step, the rest is the mean reward; hardly "
        "anything in the published code",
    )

    @model_validator(mode="after")
    def _every_setting_belongs_to_the_update(self) -> "ProxylessSpec":
        """Refuse what the update would ignore."""
        ours, others = ("two-path", "reinforce") if self.update == "two-path" else ("reinforce", "two-path")
        for name in ONLY[others]:
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} = {value} is a setting of update = {others} and would be ignored with update = {ours}; "
                    f"leave it out (of {ours} are {', '.join(ONLY[ours])})"
                )
        return self


@strategies.declare
class SuccessiveHalvingSpec(Recipe):
    """Successive halving (Jamieson and Talwalkar 2016) of promising architectures, each trained alone; no supernet."""

    name: Literal["successive-halving"] = "successive-halving"
    epochs: int = Field(
        default=2, ge=1, description="passes over the training images, for each architecture of the first rung"
    )
    warmup_epochs: int = Field(
        default=0, ge=0, description="epochs of linear warm-up before the cosine; fewer than epochs"
    )
    architectures: int = Field(default=27, ge=1, description="architectures of the first rung, all different")
    rungs: int = Field(
        default=3, ge=1, description="times that architectures are trained; each rung's start from fresh weights"
    )
    eta: int = Field(
        default=3, ge=2, description="from rung to rung one of so many stays, and is trained for so many times longer"
    )
    recalibration_batches: int = Field(
        default=20, ge=1, description="training batches that give each trained network its BatchNorm statistics"
    )
    prior: PriorSpec | None = Field(
        default=PriorSpec(),
        description="training-free scores that choose the architectures of the first rung; null: they are random",
    )

    @model_validator(mode="after")
    def _someone_stays(self) -> "SuccessiveHalvingSpec":
        if self.eta ** (self.rungs - 1) > self.architectures:
            raise ValueError(
                f"architectures = {self.architectures} leave none for the last of rungs = {self.rungs}, where one of "
                f"{self.eta ** (self.rungs - 1)} is left; give more architectures or fewer rungs"
            )
        return self
