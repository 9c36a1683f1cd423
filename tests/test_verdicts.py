import itertools
import math

import pytest

from varreg import verdicts
from varreg.statistics import Interval, PairedDifference, paired_difference


def between(low, high, n=20):
    mean = (low + high) / 2
    return PairedDifference(mean, low, high, n, 0.5, Interval(mean, low, high, n))


@pytest.mark.parametrize(
    ("low", "high", "direction", "expected"),
    [
        (0.02, 0.04, 1, "reproduced"),
        (0.001, 0.002, 1, "reproduced"),  # small, but on the claimed side
        (0.02, 0.04, -1, "not reproduced"),  # the other way round
        (-0.04, -0.02, -1, "reproduced"),
        (-0.005, 0.005, 1, "not reproduced"),  # too small to be worth having
        (-0.02, 0.02, 1, "cannot be known"),
        (-0.02, 0.02, -1, "cannot be known"),
        (-0.02, 0.009, -1, "cannot be known"),
        (-0.009, 0.02, -1, "not reproduced"),
    ],
)
def test_direction(low, high, direction, expected):
    assert verdicts.of_difference(between(low, high), direction) == expected


def test_there_are_four_words():
    assert verdicts.VERDICTS == ("reproduced", "partly", "not reproduced", "cannot be known")


def test_direction_cannot_be_known_without_pairs():
    assert verdicts.of_difference(None, 1) == "cannot be known"
    assert verdicts.of_difference(paired_difference([1.0], [0.5]), 1) == "cannot be known"


def test_number_is_judged_by_the_range_of_one_further_run():
    # mean 0.80, deviation 0.01, t(2) = 4.303: 0.80 +- 4.303 * 0.01 * sqrt(4/3) = +- 0.0497
    runs = [0.79, 0.80, 0.81]
    assert verdicts.of_number(0.849, runs) == "reproduced"
    assert verdicts.of_number(0.850, runs) == "not reproduced"
    for few in ([], [0.8], [0.8, 0.81]):
        assert verdicts.of_number(0.8, few) == "cannot be known"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["reproduced", "reproduced"], "reproduced"),
        (["reproduced", "not reproduced"], "partly"),
        (["reproduced", "cannot be known"], "partly"),
        (["partly", "not reproduced"], "partly"),
        (["partly", "partly"], "partly"),
        (["not reproduced", "cannot be known"], "cannot be known"),
        (["not reproduced", "not reproduced"], "not reproduced"),
        (["cannot be known"], "cannot be known"),
        ([], "cannot be known"),
    ],
)
def test_together(words, expected):
    assert verdicts.together(words) == expected


def test_together_always_gives_a_word_and_does_not_mind_the_order():
    for words in itertools.product(verdicts.VERDICTS, repeat=3):
        found = verdicts.together(words)
        assert found in verdicts.VERDICTS
        assert found == verdicts.together(reversed(words))


@pytest.mark.parametrize(
    ("difference", "start"),
    [
        (between(0.01, 0.03), "raises the loss by 0.020 (95 % interval 0.010 to 0.030)"),
        (between(-0.03, -0.01), "lowers the loss by 0.020 (95 % interval 0.010 to 0.030)"),
        (between(-0.01, 0.03), "does not measurably change the loss"),
        (None, "has too few recorded runs"),
    ],
)
def test_phrase_follows_the_interval(difference, start):
    assert verdicts.phrase(difference, "the loss").startswith(start)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: verdicts.of_number(math.nan, [1.0, 2.0]), "finite"),
        (lambda: verdicts.of_difference(None, 0), "direction is 0"),
        (lambda: verdicts.of_difference(None, 1, margin=-0.1), "margin is -0.1"),
        (lambda: verdicts.together(["perhaps"]), "perhaps"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
