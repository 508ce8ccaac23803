"""Mistakes that users of public synthesis and search codes made, and what dfnas says to each: one clear sentence.

Threads are named as OWNER/REPOSITORY#NUMBER on GitHub. What cost those users a traceback, a crash after hours, or a bad
result without a word, ends here before anything is computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from flows import cli
from nas_core.teachers.networks import digits_resnet

PROJECT = Path(__file__).parents[2]
DIGITS = PROJECT / "configs" / "digits.yaml"
WEIGHTS = PROJECT / "examples" / "digits" / "teacher.safetensors"


@dataclass(frozen=True)
class Mistake:
    """One of them.

    Attributes:
        who: Where users made it.
        what: The mistake.
        settings: How it is made here; "{file}" stands for a weights file.
        sentence: Part of what dfnas says; empty where it is no mistake any more.
        file: Writes the weights file.
    """

    who: str
    what: str
    settings: Sequence[str]
    sentence: str
    file: Callable[[Path], None] = lambda _: None


class NormFree(nn.Module):
    """A classifier of digits without any BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.classifier = nn.Conv2d(1, 4, 3), nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def whole_model(path: Path) -> None:
    torch.save(digits_resnet(), path)


def state(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    torch.save(change(load_file(WEIGHTS)), path)


def parallel(path: Path) -> None:
    state(path, lambda tensors: {f"module.{name}": tensor for name, tensor in tensors.items()})


def overflown(path: Path) -> None:
    state(path, lambda tensors: tensors | {"conv1.weight": tensors["conv1.weight"] * float("inf")})


def norm_free(path: Path) -> None:
    torch.save(NormFree().state_dict(), path)


FILE = "teacher.weights={file}"
NORM_FREE = (
    "teacher={{name: checkpoint, factory: '{module}:NormFree', weights: '{file}', input_shape: [1, 8, 8], mean: [0.3], "
    "std: [0.4], num_classes: 10}}"
)

MISTAKES = [
    # --- the teacher ---
    Mistake("bearpaw/pytorch-classification#27", "weights saved under DataParallel", [FILE], "", parallel),
    Mistake("lizzyhku/TP#6", "weights of another network", ["teacher.network=resnet20"], "do not fit the network"),
    Mistake("the whole field", "the model was pickled instead of its weights", [FILE], "holds code", whole_model),
    Mistake("GeorgeCazenavette/mtt-distillation#42", "NaN without a word", [FILE], "NaN or infinite", overflown),
    Mistake("VILA-Lab/SRe2L#19", "no BatchNorm", [NORM_FREE], "of which the teacher has none", norm_free),
    Mistake("peteryuX/arcface-tf2#20", "another input", ["teacher.input_shape=[3, 8, 8]"], "conv1.weight (24, 1"),
    Mistake("the whole field", "statistics in units of bytes", ["teacher.mean=[78.0]"], "mean = [78.0] looks like"),
    Mistake("the whole field", "three channels' statistics for one", ["teacher.std=[1, 1, 1]"], "std has 3"),
    Mistake("the whole field", "other classes", ["teacher.class_names=[a, b, c]"], "linear.bias (10,) instead of (3,)"),
    Mistake(
        "the whole field",
        "a misspelt network",
        ["teacher={{name: torchvision, network: resnet19}}"],
        "similar: resnet18",
    ),
    # --- synthesis ---
    Mistake("NVlabs/DeepInversion#17", "a batch that the code cannot take", ["synthesis.batch_size=1"], "is 1: input"),
    Mistake("NVlabs/DeepInversion#35", "labels beyond the classes", ["synthesis.classes=[10]"], "indices are 0 to 9"),
    Mistake("zju-vipa/Fast-Datafree#1", "more than the memory", ["synthesis.batch_size=1000000000"], "takes at least"),
    Mistake("Jiacheng8/CV-DD#6", "another code's name", ["synthesis.engine.losses.r_feature=10"], "is no setting"),
    Mistake("NVlabs/DeepInversion#6", "too few images", ["synthesis={{shards: 1, batch_size: 2}}"], "too few"),
    Mistake(
        "NVlabs/DeepInversion#2",
        "only the coarse stage",
        ["synthesis.engine.stages=[{{divisor: 2, iterations: 50}}]"],
        "must have divisor 1",
    ),
    # --- search ---
    Mistake("yuhuixu1993/PC-DARTS#16", "odd channels", ["search.strategy=pc-darts", "search.space.channels=6"], "1/4"),
    Mistake(
        "automl/RobustDARTS#9",
        "a rule without what it measures",
        ["search.strategy={{name: darts, stopping: {{rule: hessian}}}}"],
        "needs hessian_every",
    ),
    Mistake("microsoft/nni#5667", "a mobile space on small images", ["search.space=shufflenet"], "shrinks images 32"),
    Mistake("microsoft/nni#4699", "a limit that nothing keeps", ["search.max_macs=1000"], "raise it to"),
    Mistake(
        "chenxin061/pdarts#10",
        "progressive search of a space that cannot grow",
        ["search.strategy=p-darts", "search.space=nasbench1shot1", "search.max_macs=null"],
        "choose a strategy without extra_cells",
    ),
    Mistake(
        "megvii-model/SinglePathOneShot",
        "more children than places",
        ["search.strategy.population=10"],
        "must not exceed",
    ),
    # --- the machine ---
    Mistake("quark0/darts#16", "a GPU that is not there", ["device=cuda:99"], "device 'cuda:99' cannot be used here"),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what)
def test_a_mistake_ends_in_one_clear_sentence(
    mistake: Mistake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.chdir(PROJECT)
    weights = tmp_path / "weights.pt"
    mistake.file(weights)
    settings = [text.format(file=weights, module=__name__) for text in mistake.settings]
    monkeypatch.setattr("sys.argv", ["dfnas", "validate", str(DIGITS), *(w for s in settings for w in ("--set", s))])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    said = capsys.readouterr()
    if not mistake.sentence:
        assert not exit_.value.code, said.err
        return
    assert exit_.value.code == 2
    assert mistake.sentence in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert "Traceback" not in said.err
