"""The table of published methods."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from nas_core.config import RunConfig
from nas_core.settings.differentiable import DifferentiableSpec
from nas_core.settings.presets import TABLE
from nas_core.strategies import Grid, strategies
from nas_core.strategies.differentiable import Differentiable


def read(name: str, **values):
    return strategies.spec(name).model_validate({"name": name, **values})


def test_every_row_is_a_strategy_of_its_name():
    assert set(TABLE) <= set(strategies.names())
    for name in TABLE:
        strategy = strategies.build(read(name))
        for point in strategy.points if isinstance(strategy, Grid) else [strategy]:
            assert isinstance(point, Differentiable)


def test_darts_has_the_published_settings():
    """50 epochs; SGD .025 to .001, plain momentum, decay 3e-4, clip 5; Adam 3e-4, (.5, .999), 1e-3, no clip."""
    darts = read("darts")
    assert (darts.epochs, darts.learning_rate, darts.final_learning_rate) == (50, 0.025, 0.001)
    assert (darts.weight_decay, darts.gradient_clip, darts.nesterov) == (3e-4, 5, False)
    assert (darts.alpha_learning_rate, darts.alpha_betas, darts.alpha_weight_decay) == (3e-4, (0.5, 0.999), 1e-3)
    assert darts.alpha_gradient_clip is None


def test_pc_darts_has_the_published_settings():
    """K = 4; .1 to 0; Adam 6e-4; alpha from epoch 15 of 50."""
    spec = read("pc-darts")
    assert (spec.partial.divisor, spec.partial.edge_normalisation) == (4, True)
    assert (spec.learning_rate, spec.final_learning_rate, spec.alpha_learning_rate) == (0.1, 0, 6e-4)
    assert spec.alpha_start_epoch == 15


def test_momentum_is_that_of_the_published_codes():
    """DARTS and what descends from it: plain. ProxylessNAS, NAS-Bench-201's networks: Nesterov's."""
    assert not any(read(name).nesterov for name in TABLE)
    assert read("proxyless").nesterov
    assert read("random").nesterov


def test_darts_es_has_the_published_settings():
    """Second order; a look every second epoch, means of five, four apart, growth by 1.3, not before epoch 10."""
    spec = read("darts-es")
    assert (spec.order, spec.hessian_every) == ("second", 2)
    stopping = spec.stopping
    assert (stopping.window, stopping.lookback, stopping.ratio, stopping.earliest) == (5, 4, 1.3, 10)


def test_r_darts_grids_have_the_published_settings():
    """Decay 3e-4 times 1, 3, 9, 27 and 81; drop-path 0, .2, .4 and .6, cutout only beside it."""
    factors = [point.weight_decay / 3e-4 for point in read("r-darts-l2").grid]
    assert factors == pytest.approx([1, 3, 9, 27, 81])
    losses = [point.regularisation for point in read("r-darts-dp").grid]
    assert [(loss.drop_path, loss.cutout) for loss in losses] == [(0, 0), (0.2, 1), (0.4, 1), (0.6, 1)]


def test_a_grid_point_takes_the_place_of_the_strategys_own_settings():
    spec = read("r-darts-l2")
    assert [spec.at(point).weight_decay for point in spec.grid] == [point.weight_decay for point in spec.grid]
    assert spec.at(spec.grid[0]).regularisation == spec.regularisation


@pytest.mark.parametrize(
    ("name", "values", "field"),
    [
        ("r-darts-l2", {"weight_decay": 1e-3}, "weight_decay"),
        ("r-darts-dp", {"regularisation": {"cutout": 0.5}}, "regularisation"),
    ],
)
def test_what_every_point_of_a_grid_replaces_is_refused(name, values, field):
    with pytest.raises(ValidationError, match=f"because every point of grid has its own {field}"):
        read(name, **values)
    assert read(name, **values, grid=[{}, {"weight_decay": 1e-4, "regularisation": {"drop_path": 0.1}}])


def test_a_part_of_a_section_is_overridden_and_the_rest_of_the_preset_stays():
    spec = read("pc-darts-adv", perturbation={"growth": 0.5}, partial={"divisor": 2})
    assert (spec.perturbation.kind, spec.perturbation.growth) == ("adversarial", 0.5)
    assert (spec.partial.divisor, spec.partial.edge_normalisation) == (2, True)


def test_presets_differ_from_darts_in_their_row_alone():
    plain = DifferentiableSpec().model_dump()
    for name, (_, settings) in TABLE.items():
        changed = {key for key, value in read(name).model_dump().items() if value != plain[key]}
        assert changed == {"name", *settings}


def test_a_config_chooses_a_preset_by_name():
    values = yaml.safe_load((Path(__file__).parents[3] / "configs" / "digits.yaml").read_text())
    values["search"]["strategy"] = {"name": "sdarts-adv", "epochs": 20, "perturbation": {"steps": 3}}
    config = RunConfig.model_validate(values)
    assert config.search.strategy.epochs == 20
    assert config.search.strategy.perturbation.kind == "adversarial"
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0},
        {"alpha_start": 1.0},
        {"perturbation": {"kind": "nope"}},
        {"perturbation": {"radius": 1}},
        {"progression": {"stages": [{"operations": 3}, {"operations": 2}]}},
        {"stopping": {"rule": "hessian"}},
        {"stopping": {"rule": "hessian"}, "hessian_every": 2, "progression": {"stages": [{}, {}]}},
        {"grid": []},
    ],
)
def test_impossible_settings_are_refused(values):
    with pytest.raises(ValidationError):
        read("sdarts-rs", **values)
