"""The one description of a run: parameter of the Prefect flow, YAML file, and `--set` on the command line.

Every field has a description, a unit and bounds; an unknown key is an error. Sections that choose a registered
thing (teacher, space, strategy, data) are told apart by their `name`.
"""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from pydantic import Field, field_validator, model_validator

from nas_core.execution import ExecutionSpec, Local
from nas_core.registry import Spec
from nas_core.settings.data import FolderSpec, ImageSpec, data_sources
from nas_core.settings.files import UserPath
from nas_core.settings.presets import strategies
from nas_core.settings.spaces import ScalableSpec, spaces
from nas_core.settings.strategies import TrainingFreeSpec
from nas_core.settings.synthesis import ImportedSpec
from nas_core.settings.teachers import teachers
from nas_core.synthesis.config import SynthesisConfig
from nas_core.training.recipe import FinetuneRecipe
from nas_core.training.styles import RetrainConfig

if TYPE_CHECKING:

    class _Choice(Spec):
        name: str

    class _Space(ScalableSpec):
        name: str

    class _Images(ImageSpec):
        name: str

    SpaceSpec: TypeAlias = _Space
    TeacherSpec: TypeAlias = _Choice
    StrategySpec: TypeAlias = _Choice
    DataSpec: TypeAlias = _Images
else:
    TeacherSpec, SpaceSpec = teachers.union(), spaces.union()
    StrategySpec, DataSpec = strategies.union(), data_sources.union()


Baseline: TypeAlias = Literal["handmade", "random", "teacher-shrunk"]

LIMITS = ("max_macs", "max_parameters", "max_latency_ms")


class SearchConfig(Spec):
    """Search for an architecture on the synthetic images, against the teacher's soft labels."""

    space: SpaceSpec = Field(description="the search space, by name")
    strategy: StrategySpec = Field(description="the search strategy, by name")
    batch_size: int = Field(default=64, ge=2, description="images per batch of supernet training")
    validation_fraction: float = Field(
        default=0.3,
        gt=0,
        lt=1,
        description="share of the synthetic images that rates architectures and trains no weights",
    )
    validation_mixup: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="chance of a validation image to be a weighted mean of two, which the teacher labels; 0: none are",
    )
    validation_color_jitter: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="how much brightness, contrast, saturation and tint of every validation image vary; the teacher "
        "labels what comes out. 0: not at all",
    )
    max_macs: int | None = Field(
        default=None,
        gt=0,
        description="largest multiply-accumulates per image that the result may have; null: no limit",
    )
    max_parameters: int | None = Field(
        default=None, gt=0, description="largest number of parameters that the result may have; null: no limit"
    )
    max_latency_ms: float | None = Field(
        default=None,
        gt=0,
        description="longest forward pass that the result may take, in ms as in latency_table; null: no limit",
    )
    latency_table: UserPath | None = Field(
        default=None,
        description="latencies of the space's parts, as `dfnas measure-latency` writes them; then latency is the cost "
        "that strategies weigh. null: multiply-accumulates, or parameters if they are limited",
    )
    temperature: float = Field(default=3.0, gt=0, description="temperature of the distillation loss")

    @model_validator(mode="after")
    def _validation_images_are_looked_at(self) -> "SearchConfig":
        shifts = [name for name in ("validation_mixup", "validation_color_jitter") if getattr(self, name)]
        if shifts and isinstance(self.strategy, TrainingFreeSpec):
            raise ValueError(
                f"{shifts[0]} changes validation images, and {self.strategy.name} looks at none; leave it out, or "
                "choose another strategy"
            )
        return self

    @model_validator(mode="after")
    def _one_cost(self) -> "SearchConfig":
        limits = [name for name in LIMITS if getattr(self, name) is not None]
        if len(limits) > 1:
            raise ValueError(f"give one of {', '.join(LIMITS)}, not {' and '.join(limits)}")
        if self.latency_table is None and self.max_latency_ms is not None:
            raise ValueError("max_latency_ms needs latency_table, which `dfnas measure-latency` writes")
        if self.latency_table is not None and limits not in ([], ["max_latency_ms"]):
            raise ValueError(f"with latency_table the limit is max_latency_ms, not {limits[0]}")
        return self


class TableConfig(Spec):
    """A benchmark's table of true accuracies, such as NAS-Bench-201's. It comes from real images, so it only judges."""

    path: UserPath = Field(
        description="CSV file with a column `arch`, the architectures in the space's own notation; or NAS-Bench-201's "
        "own file, *.pth"
    )
    column: str = Field(description="the column of the accuracies")


class EvaluationConfig(Spec):
    """How the result is judged. `data` is where real images may judge; they enter nothing else."""

    held_out: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="share of the synthetic images kept out of search and retraining for agreement",
    )
    batch_size: int = Field(default=256, ge=1, description="images per batch")
    latency_batch: int = Field(
        default=32, ge=1, description="images per forward pass of the second latency figure; the first is of one image"
    )
    verifier: TeacherSpec | None = Field(
        default=None,
        description="another pretrained classifier of the same classes, which judges the images and enters nothing "
        "else; null: the teacher alone judges them",
    )
    data: DataSpec | None = Field(
        default=None,
        description="labelled real images for the final top-1 of teacher and student; null: data-free figures only",
    )
    table: TableConfig | None = Field(
        default=None,
        description="true accuracies of the space's architectures, which the report sets beside the course of the "
        "search; null: not shown",
    )


class FinetuneConfig(FinetuneRecipe):
    """Train the student further on labelled real images: a result beside the student, and not data-free."""

    data: DataSpec = Field(description="labelled real images to learn from, other ones than those of evaluation.data")


class SplitSizes(NamedTuple):
    """How many of the synthetic images are for what."""

    held_out: int
    validation: int
    train: int


class RunConfig(Spec):
    """A whole run: teacher in, searched and retrained network out."""

    name: str = Field(
        default="run",
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        coerce_numbers_to_str=True,  # In YAML a name of digits is a number.
        description="name of the run: lower case, digits, dashes",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="every random draw of the run derives from it")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:N or mps")
    teacher: TeacherSpec = Field(description="the pretrained classifier")
    synthesis: SynthesisConfig = Field(default_factory=SynthesisConfig, description="recovery of training images")
    search: SearchConfig = Field(description="architecture search")
    retrain: RetrainConfig = Field(default_factory=RetrainConfig, description="training of the found architecture")
    baselines: tuple[Baseline, ...] = Field(
        default=(),
        description="networks that are trained and judged beside the found one: handmade (a residual network of its "
        "cost), random (an architecture of the space), teacher-shrunk (the teacher's own with fewer channels)",
    )
    finetune: FinetuneConfig | None = Field(
        default=None,
        description="further training of the student on real images, which is not data-free; null: there is none",
    )
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="final figures")
    execution: ExecutionSpec = Field(default_factory=Local, description="where synthesis shards run")

    def content(self) -> dict[str, Any]:
        """What is computed, as JSON values, without where: runs that differ in nothing else are the same."""
        return self.model_dump(mode="json", exclude={"execution"})

    @property
    def split(self) -> SplitSizes:
        """Sizes of the splits: `evaluation.held_out` of all images, `search.validation_fraction` of the others."""
        held_out = round(self.synthesis.images * self.evaluation.held_out)
        validation = round((self.synthesis.images - held_out) * self.search.validation_fraction)
        return SplitSizes(held_out, validation, self.synthesis.images - held_out - validation)

    @model_validator(mode="after")
    def _judged_on_other_images(self) -> "RunConfig":
        engine, learned, judging = self.synthesis.engine, self.finetune and self.finetune.data, self.evaluation.data
        same = None
        if learned is not None and judging is not None and learned.place() == judging.place():
            same = "finetune.data"
        if isinstance(engine, ImportedSpec) and isinstance(judging, FolderSpec):
            one, other = engine.path.resolve(), judging.path.resolve()
            if one.is_relative_to(other) or other.is_relative_to(one):
                same = "synthesis.engine.path"
        if same is not None:
            raise ValueError(
                f"{same} and evaluation.data are the same images: a network must be judged on others than those that "
                "it learned from"
            )
        return self

    @field_validator("baselines")
    @classmethod
    def _named_once(cls, baselines: tuple[Baseline, ...]) -> tuple[Baseline, ...]:
        if len(set(baselines)) < len(baselines):
            raise ValueError(f"each baseline may be named once, not {', '.join(baselines)}")
        return baselines

    @model_validator(mode="after")
    def _splits_leave_images(self) -> "RunConfig":
        # BatchNorm needs two images in a batch, and some strategies train on those for validation.
        if self.split.held_out < 1 or min(self.split.validation, self.split.train) < 2:
            raise ValueError(
                f"{self.synthesis.images} synthetic images are too few for evaluation.held_out = "
                f"{self.evaluation.held_out} and search.validation_fraction = {self.search.validation_fraction}; "
                "raise synthesis.shards or synthesis.rounds"
            )
        return self


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested config values as one level of dotted keys, for comparing two configs."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
