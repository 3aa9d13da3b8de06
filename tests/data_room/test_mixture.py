"""Mixtures and curricula: exact shares, permutations, windows, and an order that is a function of the position."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
from fractions import Fraction

import numpy as np
import pytest

from prerl_jax.data import Curriculum, Mixture, Problem, make_batches, make_ordered_batches
from prerl_jax.data.mixture import schedule, shares
from prerl_jax.data.order import Order


@dataclasses.dataclass(frozen=True)
class Listed:
    count: int
    name: str = ""

    def load(self):
        return problems(self.count, self.name), (f"note of {self.name}",)


def problems(count, name="", difficulty=lambda n: None):
    return tuple(Problem(f"{name}{n}", str(n), name, difficulty=difficulty(n)) for n in range(count))


def take(order, count, first=0):
    return np.concatenate([order.numbers(number) for number in range(first, first + count)])


@pytest.mark.parametrize(
    "weights",
    [(0.7, 0.3), (1, 1), (1 / 3, 2 / 3), (7, 11, 13, 1), (0.001, 0.999), (5, 5, 5, 1, 1, 1), (747, 274, 25)],
)
def test_after_every_draw_each_share_is_exact_within_one(weights):
    parts = shares(weights)
    assert sum(parts) == 1
    places = schedule(parts)
    for part, share in enumerate(parts):
        served = np.cumsum(places == part)
        for n in range(1, len(places) + 1):
            assert abs(int(served[n - 1]) - n * share) < 1
        assert served[-1] == share * len(places)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.5, 0), "above 0"),
        ((0.5, -1), "above 0"),
        ((0.5, float("nan")), "above 0"),
        ((0.5, float("inf")), "above 0"),
        ((0.5, "1"), "above 0"),
        ((0.5, True), "above 0"),
        ((0.5, 1e-9), "more than three decimals"),
        ((0.12345, 1), "more than three decimals"),
        ((0.997, 1 / 991), "repeat only after"),
    ],
)
def test_weights_that_cannot_be(weights, message):
    with pytest.raises(ValueError, match=message):
        shares(weights)


def test_a_mixture_loads_its_parts():
    mixture = Mixture(((Listed(2, "a"), 1), (Listed(1, "b"), 2)))
    assert [problem.prompt for problem in mixture.load()[0]] == ["a0", "a1", "b0"]
    assert mixture.load()[1] == ("note of a", "note of b")
    with pytest.raises(ValueError, match="mixes nothing"):
        Mixture(((Listed(2), 1),))
    with pytest.raises(ValueError, match="part 1 of the mixture is"):
        Mixture(((Listed(2), 1), (mixture, 1)))
    with pytest.raises(ValueError, match="part 0 of the mixture is 5"):
        Mixture(((5, 1), (Listed(2), 1)))


def mixed(batch=4, seed=3, curriculum=None):
    return Order([problems(10), problems(3)], shares((0.7, 0.3)), batch=batch, seed=seed, curriculum=curriculum)


def test_every_epoch_of_every_source_is_a_new_permutation():
    drawn = take(mixed(), 100)
    for numbers, first, size in ((drawn[drawn < 10], 0, 10), (drawn[drawn >= 10], 10, 3)):
        epochs = numbers[: len(numbers) // size * size].reshape(-1, size)
        assert (np.sort(epochs, axis=1) == first + np.arange(size)).all()
        assert len({tuple(epoch) for epoch in epochs}) > 1
    assert collections.Counter((drawn >= 10).tolist()) == {False: 280, True: 120}


def test_the_order_is_a_function_of_seed_and_position():
    whole = take(mixed(), 30).reshape(30, 4)
    for number in (29, 0, 17, 3):  # in any order, of a fresh one and of one that was asked before
        assert (mixed().numbers(number) == whole[number]).all()
    assert (take(mixed(seed=4), 30) != whole.ravel()).any()


@pytest.mark.parametrize("position", [0, 1, 5, 12])
def test_resume_is_exact(position):
    expected = take(mixed(), 20).reshape(20, 4)
    batches = make_ordered_batches(mixed())
    assert (np.stack(list(itertools.islice(batches, position + 1)))[-1] == expected[position]).all()
    state = json.loads(json.dumps(batches.get_state()))
    fresh = make_ordered_batches(mixed())
    fresh.set_state(state)
    assert (np.stack(list(itertools.islice(fresh, 3))) == expected[position + 1 : position + 4]).all()
    for other in (mixed(seed=4), mixed(batch=2), mixed(curriculum=Curriculum(missing=0))):
        with pytest.raises(ValueError, match="does not belong"):
            make_ordered_batches(other).set_state(state)
    with pytest.raises(ValueError, match="does not belong"):
        make_batches(13, batch=4, seed=3).set_state(state)


def test_a_batch_never_needs_more_of_a_source_than_it_has():
    with pytest.raises(ValueError, match="up to 2 problems from part 1 of the mixture, which has 1"):
        Order([problems(10), problems(1)], shares((1, 1)), batch=4, seed=0)
    for number in range(50):
        batch = take(mixed(), 1, number)
        assert len(batch) == 4


def ordered(curriculum, size=20, batch=4, difficulty=lambda n: 20 - n):
    return Order([problems(size, "", difficulty)], [Fraction(1)], batch=batch, seed=0, curriculum=curriculum)


def test_windows_move_from_easy_to_hard():
    order = ordered(Curriculum(steps=10, begin=(0.0, 0.2), end=(0.8, 1.0)))
    easy_first = 19 - np.stack([order.numbers(number) for number in range(30)])  # problem 19 is the easiest
    assert (np.sort(easy_first[0]) == [0, 1, 2, 3]).all()
    assert (np.sort(easy_first[10]) == [16, 17, 18, 19]).all()
    assert (np.sort(easy_first[5])[[0, -1]] >= [8, 11]).all()
    assert (np.sort(easy_first[5])[[0, -1]] <= [8, 12]).all()
    assert all(len(set(batch.tolist())) == 4 for batch in easy_first)
    hard_first = ordered(Curriculum(steps=10, begin=(0.0, 0.2), end=(0.8, 1.0), easy="high"))
    assert (np.sort(hard_first.numbers(0)) == [0, 1, 2, 3]).all()


def test_after_the_windows_have_moved_every_epoch_is_a_permutation():
    drawn = take(ordered(Curriculum(steps=3)), 10, first=3).reshape(2, 20)
    assert (np.sort(drawn, axis=1) == np.arange(20)).all()
    assert (drawn[0] != drawn[1]).any()


def test_windows_in_a_mixture_keep_the_shares():
    curriculum = Curriculum(steps=5, begin=(0.0, 0.5))
    parts = [problems(20, "a", lambda n: n), problems(20, "b", lambda n: -n)]
    order = Order(parts, shares((3, 1)), batch=4, seed=0, curriculum=curriculum)
    for number in range(12):
        assert (order.numbers(number) < 20).sum() == 3
    assert set(order.numbers(0)) <= {*range(10), *range(30, 40)}


def test_difficulties():
    found = problems(4, difficulty=lambda n: None if n == 2 else float(n))
    with pytest.raises(ValueError, match=r"1 of 4 problems have no difficulty, the first is problem 2: '2'"):
        Curriculum().difficulties(found)
    assert Curriculum(missing=-1).ranked(found).tolist() == [2, 0, 1, 3]
    assert Curriculum(missing=-1, easy="high").ranked(found).tolist() == [3, 1, 0, 2]
    assert Curriculum(missing=0, between=(1, 2)).kept(found).tolist() == [False, True, False, False]
    assert Curriculum(missing=0).kept(found).all()
    with pytest.raises(ValueError, match=r"between 7 and 8: they are 0 to 3"):
        Curriculum(missing=0, between=(7, 8)).kept(found)
    assert Curriculum().ranked(problems(3, difficulty=lambda n: 1.0)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": -1}, "0 or more"),
        ({"begin": (0.5, 0.5)}, "begin is"),
        ({"end": (0.5, 1.5)}, "end is"),
        ({"end": (float("nan"), 1)}, "end is"),
        ({"easy": "middle"}, "one of"),
        ({"between": (2, 1)}, "between is"),
        ({"missing": float("nan")}, "finite"),
    ],
)
def test_a_curriculum_that_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        Curriculum(**fields)


def test_a_window_that_is_too_narrow():
    with pytest.raises(ValueError, match="the curriculum's window has 2 of its 20"):
        ordered(Curriculum(steps=10, begin=(0.0, 0.1)))
