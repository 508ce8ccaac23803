"""Windows: inside the canvas, uniform, fair, and the only place that a gradient reaches."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from nas_core.seeding import generator
from nas_core.synthesis.regional import Window, cut, random_window, resized


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


@given(
    height=st.integers(1, 20), width=st.integers(1, 20), more=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    min_scale=st.floats(0.01, 0.99), seed=st.integers(0, 10_000),
)  # fmt: skip
def test_jittered_windows_lie_inside_the_canvas(
    height: int, width: int, more: tuple[int, int], min_scale: float, seed: int
):
    canvas = torch.zeros(1, 1, height + more[0], width + more[1])
    draws = generator(seed, "test")
    window = random_window(canvas.shape[2:], (height, width), may_flip=True, generator=draws, min_scale=min_scale)
    assert cut(canvas, window).shape == (1, 1, window.height, window.width)
    assert min(window.height, window.width) >= 1


def test_jitter_draws_area_and_aspect_ratio_from_their_ranges():
    """On a large canvas nothing is clamped: areas are uniform in [0.25, 1] and ratios stay within 3/4 and 4/3."""
    draws = generator(0, "test")
    windows = [
        random_window((2000, 2000), (1000, 1000), may_flip=False, generator=draws, min_scale=0.25) for _ in range(2000)
    ]
    areas = torch.tensor([w.height * w.width / 1e6 for w in windows])
    ratios = torch.tensor([w.width / w.height for w in windows])
    assert areas.min() > 0.249
    assert areas.max() < 1.001
    # A uniform draw from [0.25, 1] has mean 0.625 and standard deviation 0.217, the mean of 2000 one of 0.005.
    assert abs(float(areas.mean()) - 0.625) < 5 * 0.005
    assert ratios.min() > 0.745
    assert ratios.max() < 1.34
    assert abs(float(ratios.log().mean())) < 0.02


def test_resizing_leaves_a_view_of_the_right_size_alone():
    view = torch.rand(1, 1, 3, 4)
    assert resized(view, (3, 4)) is view
    assert resized(view, (6, 8)).shape == (1, 1, 6, 8)
