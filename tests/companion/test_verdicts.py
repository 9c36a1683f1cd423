import itertools
import math

import numpy as np
import pytest
from scipy import stats

from companion import verdicts
from varreg.lab.statistics import Interval, PairedDifference, paired_difference


def between(low, high, n=20):
    mean = (low + high) / 2
    return PairedDifference(mean, low, high, n, 0.5, Interval(mean, low, high, n))


@pytest.mark.parametrize(
    ("low", "high", "direction", "expected"),
    [
        (0.02, 0.04, 1, "reproduced"),
        (0.001, 0.002, 1, "not reproduced"),  # on the claimed side, but too small to matter
        (0.001, 0.012, 1, "cannot be known"),  # on the claimed side, perhaps large enough
        (0.001, 0.019, 1, "reproduced"),
        (0.02, 0.04, -1, "contradicted"),  # the other way round
        (-0.019, -0.001, 1, "contradicted"),
        (-0.002, -0.001, 1, "not reproduced"),  # the other way round, by next to nothing
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


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.05])
def test_one_side_mirrors_the_other(margin):
    mirrored = {"reproduced": "contradicted", "contradicted": "reproduced"}
    ends = [-0.08, -0.03, -0.004, 0.0, 0.004, 0.03, 0.08]
    for low, high in itertools.combinations_with_replacement(ends, 2):
        up = verdicts.of_difference(between(low, high), 1, margin)
        down = verdicts.of_difference(between(low, high), -1, margin)
        if up in mirrored or down in mirrored:
            # No interval both shows an effect that matters and rules one out on the same side.
            assert mirrored.get(up, down) == down


def test_direction_cannot_be_known_without_pairs():
    assert verdicts.of_difference(None, 1) == "cannot be known"
    assert verdicts.of_difference(paired_difference([1.0], [0.5]), 1) == "cannot be known"


def test_number_is_judged_by_the_range_of_one_further_run():
    # mean 0.80, deviation 0.01, t(5) = 2.5706: 0.80 +- 2.5706 * 0.01 * sqrt(7/6) = +- 0.02777
    runs = 0.80 + 0.01 * math.sqrt(5 / 6) * np.array([-1, 1, -1, 1, -1, 1])
    assert verdicts.of_number(0.8277, runs) == "reproduced"
    assert verdicts.of_number(0.8278, runs) == "not reproduced"
    for few in ([], [0.8], [0.8, 0.81]):
        assert verdicts.of_number(0.8, few) == "cannot be known"


def test_an_interval_that_excludes_hardly_anything_reproduces_nothing():
    # mean 0.80, deviation 0.01, t(2) = 4.303: 0.80 +- 4.303 * 0.01 * sqrt(4/3) = +- 0.0497
    three = [0.79, 0.80, 0.81]
    assert verdicts.of_number(0.80, three) == verdicts.of_number(0.849, three) == "cannot be known"
    assert verdicts.of_number(0.850, three) == "not reproduced"
    for runs in range(3, 30):
        reach = stats.t.ppf(0.975, runs - 1) * math.sqrt(1 + 1 / runs)
        values = np.arange(runs) / runs
        expected = "cannot be known" if reach > verdicts.REACH else "reproduced"
        assert verdicts.of_number(values.mean(), values) == expected
        assert (expected == "reproduced") == (runs >= 6)


def test_a_change_is_not_reproduced_by_pairs_that_hold_no_change_too():
    pairs = np.array([0.5, -0.4, 0.3, 0.9, -0.2, 0.6, 0.4])
    assert verdicts.of_number(0.65, pairs) == "reproduced"
    assert verdicts.of_number(0.65, pairs, null=0) == "cannot be known"
    assert verdicts.of_number(0.65 + 9, pairs + 9, null=0) == "reproduced"
    assert verdicts.of_number(9.0, pairs, null=0) == "not reproduced"


@pytest.mark.parametrize("runs", [3, 6, 10])
@pytest.mark.parametrize("away", [0.0, 1.0, 3.0, 5.0])
def test_how_often_a_number_that_is_off_passes(runs, away):
    """By simulation: how often is a number so many deviations off called reproduced?"""
    random = np.random.default_rng(0)
    tries = 4_000
    words = [verdicts.of_number(away, values) for values in random.standard_normal((tries, runs))]
    inside = 1 - words.count("not reproduced") / tries
    expected = verdicts.pass_rate(runs, away)
    assert inside == pytest.approx(expected, abs=4 * math.sqrt(0.25 / tries))
    if runs == 3:
        assert "reproduced" not in words
    else:
        assert words.count("reproduced") + words.count("not reproduced") == tries
    if away == 0:  # one further run lies there with 95 % probability; the mean itself more often
        assert expected > 0.95
    if (runs, away) == (10, 3.0):
        assert words.count("reproduced") / tries < 0.17


@pytest.mark.parametrize("truth", [0.0, 0.01, 0.02])
def test_how_often_a_direction_is_called_reproduced(truth):
    """By simulation, 20 pairs whose differences have a deviation of 0.02."""
    random = np.random.default_rng(1)
    draws = truth + 0.02 * random.standard_normal((2_000, 20))
    words = [verdicts.of_difference(paired_difference(d, 0 * d), 1) for d in draws]
    share = {word: words.count(word) / len(words) for word in verdicts.VERDICTS}
    if truth == 0:
        # Of the 2.5 % whose interval excludes zero on one side, those with a mean of a margin.
        assert share["reproduced"] < 0.025
        assert share["contradicted"] < 0.025
    else:
        assert share["contradicted"] == 0
    if truth == 0.02:
        assert share["reproduced"] > 0.95
        assert share["not reproduced"] < 0.025


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
        (["contradicted", "contradicted"], "contradicted"),
        (["contradicted", "not reproduced"], "not reproduced"),
        (["contradicted", "cannot be known"], "cannot be known"),
        (["contradicted", "reproduced"], "partly"),
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
        (between(-0.01, 0.03), "may lower or raise the loss (95 % interval"),
        (between(-0.19, 0.19), "may lower or raise the loss (95 % interval"),
        (between(-0.0012, 0.0008), "changes the loss by less than 0.002 (95 % interval"),
        (between(0.0, 0.0), "leaves the loss as it is"),
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


@pytest.mark.parametrize("low", [-0.0099, -0.0042, -0.00101, -0.0005])
def test_the_bound_that_is_printed_is_one(low):
    text = verdicts.phrase(between(low, 0.0004), "the loss")
    bound = float(text.split("less than ")[1].split()[0])
    assert bound >= -low
    assert bound <= verdicts.MARGIN + 1e-12
