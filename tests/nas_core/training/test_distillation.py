"""The distillation loss: a hand-computed value and its limit cases."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_core.training.distillation import distillation_loss


def test_loss_matches_hand_computed_value():
    """At T = 2 the teacher says (3/4, 1/4), the student (1/2, 1/2): 4 (3/4 ln 3/2 + 1/4 ln 1/2)."""
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    torch.testing.assert_close(distillation_loss(torch.zeros(1, 2), teacher, 2.0), torch.tensor(expected))


def test_batch_is_averaged():
    teacher = torch.tensor([[1.0, 0.0, -1.0]])
    once = distillation_loss(torch.zeros(1, 3), teacher, 3.0)
    torch.testing.assert_close(distillation_loss(torch.zeros(5, 3), teacher.expand(5, 3), 3.0), once)


@settings(deadline=None)
@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 20), shift=st.floats(-5, 5))
def test_loss_is_zero_only_for_equal_predictions(seed, temperature, shift):
    """Logits are free up to a constant; any other difference costs something."""
    student, teacher = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed)).unbind()
    assert float(distillation_loss(teacher + shift, teacher, temperature)) < 1e-4
    assert float(distillation_loss(student, teacher, temperature)) > 0


def test_high_temperature_matches_centred_logits():
    """As T grows, T² KL -> |centred difference|² / (2 classes) (Hinton et al., section 2.1)."""
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    difference = student - teacher
    centred = difference - difference.mean(dim=1, keepdim=True)
    expected = centred.square().sum(dim=1).mean() / (2 * 5)
    torch.testing.assert_close(distillation_loss(student, teacher, 1e3), expected, rtol=1e-2, atol=0)
