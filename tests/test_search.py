"""The search for the fewest layers in full precision: bisection that ends, tries nothing twice and finds what it looks for."""

from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.search import RESOLUTION, Tried, next_try, tries_left
from edgekit.core.sensitivity import Sensitivity, Unit, give_back_order, noise_left, ranked

noises = st.lists(st.floats(0, 1e6) | st.sampled_from([0.0, 1e-12, 1.0]), min_size=1, max_size=200)


def layers(noise, share=0.01):
    return tuple(Sensitivity(Unit(f"layer {i}", "Conv", (f"layer {i}",), share), n) for i, n in enumerate(noise))


def searched(order, smallest, looks_fine=False):
    """The tries, in their order, when `smallest` units are enough and fewer are not."""
    tried = []
    while (count := next_try(order, tried, looks_fine)) is not None:
        assert len(tried) < 40, "the search does not end"
        tried.append(Tried(count, count >= smallest))
    return tried


@st.composite
def searches(draw):
    order = give_back_order(layers(draw(noises)))
    return order, draw(st.integers(0, len(order))), draw(st.booleans())


@given(searches())
def test_a_count_is_tried_once_and_never_all(search):
    order, smallest, looks_fine = search
    counts = [t.kept for t in searched(order, smallest, looks_fine)]
    assert len(set(counts)) == len(counts)
    assert all(0 <= count < len(order) for count in counts)


@given(searches())
def test_the_smallest_count_that_holds_is_found_within_the_resolution(search):
    order, smallest, looks_fine = search
    tried = searched(order, smallest, looks_fine)
    found = min((t.kept for t in tried if t.held), default=len(order))
    assert smallest <= found < smallest + max(1, round(len(order) * RESOLUTION))


@given(searches())
def test_no_more_tries_come_than_were_told(search):
    order, smallest, looks_fine = search
    tried = searched(order, smallest, looks_fine)
    for done in range(len(tried) + 1):
        assert len(tried) - done <= tries_left(len(order), tried[:done])
    assert tries_left(len(order), tried) == 0


def test_few_tries_are_enough_for_many_layers():
    assert tries_left(200, ()) <= 7
    assert len(searched(layers([1.0] * 200), 77)) <= 6


def test_the_first_try_is_where_the_noise_has_fallen_far_enough():
    order = give_back_order(layers([100.0, 50.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]))
    assert next_try(order, []) == 2
    assert next_try(order, [Tried(2, held=True)]) == 0


def test_everything_quantized_comes_first_when_it_looks_fine():
    order = layers([4.0, 3.0, 2.0, 1.0])
    assert next_try(order, [], looks_fine=True) == 0
    assert next_try(order, [Tried(0, held=True)], looks_fine=True) is None


def test_the_prediction_is_asked_when_everything_quantized_looked_fine_but_failed():
    order = layers([100.0, 50.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert next_try(order, [Tried(0, held=False)], looks_fine=True) == 2


def test_layers_of_equal_noise_are_searched_too():
    """The noise falls below a tenth only when all are kept, which is no try."""
    assert next_try(layers([1.0] * 5), []) == 4


def test_a_model_of_one_unit_has_one_try():
    assert [t.kept for t in searched(layers([1.0]), 1)] == [0]
    assert next_try((), []) is None


def test_the_order_gives_back_most_noise_for_the_work_first():
    cheap, dear, free = layers([1.0], 0.01)[0], layers([5.0], 0.9)[0], layers([0.01], 0.0)[0]
    assert give_back_order([free, dear, cheap]) == (cheap, dear, free)
    assert ranked([free, cheap, dear]) == (dear, cheap, free)
    assert noise_left((cheap, dear, free), 1) == 5.01
