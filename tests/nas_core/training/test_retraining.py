"""Retraining: parts that act in training alone, averaged weights, and what a network does not have."""

import copy

import pytest
import torch

from nas_core.checkpoint import Checkpoint
from nas_core.errors import InputError
from nas_core.ops.initialisation import initialise
from nas_core.ops.stochastic import DropPath
from nas_core.search_spaces import spaces
from nas_core.search_spaces.darts import DartsSpace
from nas_core.search_spaces.nasbench201 import NasBench201
from nas_core.seeding import generator
from nas_core.training.distillation import distillation_loss
from nas_core.training.retraining import Student, augmentation, check_retraining, retrain
from nas_core.training.styles import STYLES, RetrainConfig

SHORT = {"warmup_epochs": 0, "precision": "float32"}


def make_space(side: int = 8) -> DartsSpace:
    return DartsSpace(network_channels=2, network_cells=3, input_shape=(3, side, side), num_classes=4)


def make_network(side: int = 8):
    space = make_space(side)
    return space.network(space.architecture(space.sample(generator(0, "toy"))))


def equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def test_dropped_paths_ramp_up_linearly():
    network = make_network()
    student = Student(network, RetrainConfig(epochs=10, drop_path=0.2))
    student.start_epoch(5)
    rates = [part.rate for part in network.modules() if isinstance(part, DropPath)]
    assert rates == [pytest.approx(0.1)] * 3


def test_the_second_classifier_adds_its_weighted_loss(make_batches):
    network = make_network(side=32)
    student = Student(network, RetrainConfig(auxiliary_weight=0.4))
    initialise(student.network, generator(0, "weights"))
    batch = next(make_batches(4, 4).fixed())
    images = torch.rand(4, 3, 32, 32, generator=generator(0, "images"))
    batch = type(batch)(images, batch.teacher_logits)
    loss, logits = student.loss(batch, lambda student, _: student[:, 0].mean())
    expected, features = network.with_features(images)
    auxiliary = student.network.auxiliary(features)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(loss, expected[:, 0].mean() + 0.4 * auxiliary[:, 0].mean())


def test_the_second_classifier_leaves_the_first_weights_as_they_are():
    plain, both = (Student(make_network(32), RetrainConfig(auxiliary_weight=weight)) for weight in (0.0, 0.4))
    for student in (plain, both):
        initialise(student.network, generator(0, "weights"))
    assert equal(plain.network.network, both.network.network)


@pytest.mark.parametrize(
    "settings",
    [{"drop_path": 0.5}, {"average_decay": 0.9}, {"cutout": 4, "crop_scale": 0.2, "mixup": 0.5, "color_jitter": 0.5}],
)
def test_an_interrupted_retraining_ends_with_the_same_bytes(make_batches, settings):
    config = RetrainConfig(epochs=3, **SHORT, **settings)
    batches = make_batches(16, 8)
    batches.augmentation = augmentation(config)
    states, rest = [], []
    whole = make_network()
    retrain(whole, batches, config, 0, Checkpoint(None, lambda state: states.append(copy.deepcopy(state))))
    resumed = make_network()
    retrain(resumed, batches, config, 0, Checkpoint(states[0], rest.append))
    assert equal(whole, resumed)
    assert (len(states), len(rest)) == (3, 2)


def test_the_average_of_the_weights_is_the_result(make_batches):
    """After steps 1 and 2 it is w1, then 2/11 w1 + 9/11 w2: its warm-up is slower than a decay of 0.9."""
    batches, snapshots = make_batches(16, 8), []
    config = RetrainConfig(epochs=1, average_decay=0.9, **SHORT)

    class Watched(Student):
        def after_step(self):
            super().after_step()
            snapshots.append(copy.deepcopy(network.state_dict()))

    network = make_network()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("nas_core.training.retraining.Student", Watched)
        retrain(network, batches, config, 0, Checkpoint())
    assert len(snapshots) == 2
    for name, averaged in network.state_dict().items():
        if averaged.is_floating_point():
            torch.testing.assert_close(averaged, 2 / 11 * snapshots[0][name] + 9 / 11 * snapshots[1][name])


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_the_loss_is_the_distillation_loss_at_its_temperature(make_batches, temperature):
    """One step of all images: the loss is that of the logits before it."""
    network, batches, seen = make_network(), make_batches(16, 16), []
    network.register_forward_hook(lambda _, inputs, logits: seen.append((inputs[0], logits.detach())))
    config = RetrainConfig(epochs=1, temperature=temperature, **SHORT)
    (record,) = retrain(network, batches, config, 0, Checkpoint())
    ((images, logits),) = seen
    expected = distillation_loss(logits, batches.teacher.logits(images), temperature)
    assert record["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_what_a_network_does_not_have_is_left_out(make_batches):
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4))
    config = RetrainConfig(epochs=1, drop_path=0.3, auxiliary_weight=0.4, **SHORT)
    records = retrain(network, make_batches(8, 8), config, 0, Checkpoint())
    assert [record["epoch"] for record in records] == [0]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"drop_path": 0.2}, "'nasbench201' have no paths"),
        ({"auxiliary_weight": 0.4}, "'nasbench201' have no place for an auxiliary classifier"),
        ({"cutout": 8}, "retrain.cutout = 8 can take all of an image of 8 x 8 pixels; set it to 4 or less"),
    ],
)
def test_what_a_space_does_not_have_is_refused(settings, sentence):
    space = NasBench201(2, 1, input_shape=(3, 8, 8), num_classes=4)
    with pytest.raises(InputError, match=sentence):
        check_retraining(space, space, RetrainConfig(**settings))


def test_every_style_fits_a_space():
    cells, benchmark = make_space(32), NasBench201(2, 1, input_shape=(3, 8, 8), num_classes=4)
    check_retraining(cells, cells, RetrainConfig.model_validate("darts"))
    check_retraining(benchmark, benchmark, RetrainConfig.model_validate("mobile"))


def both_sizes(name: str, width: float, **values):
    """The spaces of search and of retraining."""
    spec = spaces.spec(name).model_validate(values)
    side = 224 if "strides" in type(spec).model_fields and not values else 32
    return (spaces.build(s, input_shape=(3, side, side), num_classes=4) for s in (spec, spec.scaled(width, None)))


@pytest.mark.parametrize(("channels", "width"), [(16, 1.5), (24, 2 / 3)])
def test_a_width_that_changes_what_there_is_to_choose_is_refused(channels, width):
    """Block 0 has 16 input channels at any width, and can be left out only if its output has as many."""
    searched, space = both_sizes(
        "proxyless", width, stage_blocks=(1, 1), stage_channels=(channels, 32), strides=(1, 1, 2)
    )
    with pytest.raises(InputError, match=r"retrain\.width = .* block 0 has Zero at the size of the search or at "):
        check_retraining(searched, space, RetrainConfig(width=width))


@pytest.mark.parametrize("name", spaces.names())
def test_the_default_sizes_can_be_made_wider(name):
    searched, space = both_sizes(name, 1.5)
    assert searched.slots == space.slots
    check_retraining(searched, space, RetrainConfig(width=1.5))


def test_a_style_is_overridden_by_what_is_given_and_survives_writing():
    config = RetrainConfig.model_validate({"style": "darts", "epochs": 7})
    assert (config.epochs, config.cutout, config.drop_path, config.auxiliary_weight) == (7, 16, 0.2, 0.4)
    assert RetrainConfig.model_validate(config.model_dump(mode="json")) == config
    assert RetrainConfig.model_validate("plain") == RetrainConfig()
    nesterov = {style: RetrainConfig.model_validate(style).nesterov for style in STYLES}
    assert nesterov == {"plain": True, "darts": False, "mobile": True}
    assert STYLES["mobile"].items() <= RetrainConfig.model_validate("mobile").model_dump().items()
