import torch
from hypothesis import given
from hypothesis import strategies as st

from nas_core.seeding import derived_seed, generator

SEEDS = st.integers(0, 2**63 - 1)
STAGES = st.sampled_from(["synthesis.noise", "synthesis.crops", "search", "retrain"])
POSITIONS = st.lists(st.integers(0, 10**6), max_size=3).map(tuple)
STREAMS = st.tuples(SEEDS, STAGES, POSITIONS)


def test_seed_is_the_same_on_every_machine():
    """BLAKE2b of "0/search/1/2" with eight bytes, read big-endian and halved."""
    assert derived_seed(0, "search", 1, 2) == 2529046955653941979


@given(stream=STREAMS)
def test_seed_is_a_non_negative_63_bit_number(stream):
    run_seed, stage, position = stream
    assert 0 <= derived_seed(run_seed, stage, *position) < 2**63


@given(one=STREAMS, other=STREAMS)
def test_streams_are_equal_exactly_when_their_arguments_are(one, other):
    seeds = [derived_seed(run_seed, stage, *position) for run_seed, stage, position in (one, other)]
    assert (seeds[0] == seeds[1]) == (one == other)


@given(stream=STREAMS)
def test_digits_do_not_move_between_positions(stream):
    """(1, 23) and (12, 3) are different places."""
    run_seed, stage, position = stream
    assert derived_seed(run_seed, stage, *position, 1, 23) != derived_seed(run_seed, stage, *position, 12, 3)


def test_generator_repeats_its_draws_and_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    first, again, other = (torch.rand(5, generator=generator(7, "search", epoch)) for epoch in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)
    assert torch.get_rng_state().equal(before)
