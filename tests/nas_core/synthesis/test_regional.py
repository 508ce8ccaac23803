"""Windows: inside the canvas, uniform, fair, and the only place that a gradient reaches."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from nas_core.seeding import generator
from nas_core.synthesis.regional import Window, cut, random_window


@given(
    height=st.integers(1, 9), width=st.integers(1, 9), more=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    seed=st.integers(0, 10_000),
)  # fmt: skip
def test_windows_lie_inside_the_canvas(height: int, width: int, more: tuple[int, int], seed: int):
    canvas = torch.zeros(1, 1, height + more[0], width + more[1])
    window = random_window(canvas.shape[2:], (height, width), may_flip=True, generator=generator(seed, "test"))
    assert cut(canvas, window).shape == (1, 1, height, width)


def test_every_offset_comes_up_and_flips_are_fair():
    draws = generator(0, "test")
    windows = [random_window((4, 5), (3, 3), may_flip=True, generator=draws) for _ in range(2000)]
    counts = {(w.top, w.left): 0 for w in windows}
    for window in windows:
        counts[window.top, window.left] += 1
    assert len(counts) == 2 * 3
    # 2000 draws over 6 cells: the standard deviation of a count is below 17.
    assert all(abs(count - 2000 / 6) < 5 * 17 for count in counts.values())
    assert abs(sum(w.flip for w in windows) - 1000) < 5 * 23


def test_no_flips_where_mirrored_images_change_class():
    draws = generator(0, "test")
    assert not any(random_window((4, 4), (4, 4), may_flip=False, generator=draws).flip for _ in range(100))


def test_gradient_reaches_the_window_only():
    canvas = torch.randn(2, 1, 5, 6, requires_grad=True)
    cut(canvas, Window(top=1, left=2, height=3, width=3, flip=True)).sum().backward()
    expected = torch.zeros(2, 1, 5, 6)
    expected[:, :, 1:4, 2:5] = 1
    assert torch.equal(canvas.grad, expected)  # type: ignore[arg-type]


def test_a_flipped_window_is_mirrored_left_to_right():
    canvas = torch.arange(6.0).reshape(1, 1, 2, 3)
    view = cut(canvas, Window(top=0, left=1, height=2, width=2, flip=True))
    assert view.flatten().tolist() == [2, 1, 5, 4]
