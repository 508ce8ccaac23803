"""Which arithmetic "auto" chooses, and what mixed precision changes."""

import pytest
import torch
from torch import nn

from nas_core.precision import mixed_precision, resolve_precision


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)],
)
def test_a_cpu_has_bfloat16_if_its_instructions_do(capabilities, dtype, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_precision("auto", torch.device("cpu")) is dtype
    assert resolve_precision("float32", torch.device("cpu")) is torch.float32
    assert resolve_precision("bfloat16", torch.device("cpu")) is torch.bfloat16


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_that_emulates_bfloat16_gets_float32(native, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert resolve_precision("auto", torch.device("cuda")) is dtype


def test_mixed_precision_multiplies_in_bfloat16_and_keeps_the_weights():
    layer, images = nn.Conv2d(3, 4, 3), torch.ones(1, 3, 5, 5)
    with mixed_precision(torch.bfloat16, torch.device("cpu")):
        low = layer(images)
    with mixed_precision(torch.float32, torch.device("cpu")):
        full = layer(images)
    assert low.dtype is torch.bfloat16
    assert full.dtype is torch.float32
    assert layer.weight.dtype is torch.float32
    torch.testing.assert_close(low.float(), full, rtol=2**-7, atol=2**-7)
