import math

import pandas as pd
import pytest

from companion import words


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (words.number(-0.0004), "\u22120.000"),
        (words.number(math.nan), "\u2013"),
        (words.number(-1234.5, 1, signed=True), "\u22121,234.5"),
        (words.between(-1, 0.5, 1), "\u22121.0 to 0.5"),
        (words.between(-1, 0.5, 1, signed=True), "\u22121.0 to +0.5"),
        (words.between(math.nan, 1), "\u2013"),
        (words.interval(-0.1, -0.2, 0.3, 1, signed=True), "\u22120.1 [\u22120.2, +0.3]"),
        (words.interval(math.nan, 0, 1), "\u2013"),
        (words.percent(-0.5), "\u221250 %"),
        (words.percent(float("nan")), "\u2013"),
        (words.short(-0.00123), "\u22120.0012"),
        (words.short(1e7), "10,000,000"),
        (words.duration(3e-6), "3 \u00b5s"),
        (words.duration(0.9999), "1 s"),
        (words.duration(1e-9), "0"),
        (words.listed(["a"]), "a"),
        (words.listed(["a", "b"]), "a and b"),
        (words.count(0, "run"), "0 runs"),
        (words.capital(""), ""),
    ],
)
def test_numbers_are_printed_with_a_minus_sign_and_a_dash_for_what_is_not_known(text, printed):
    assert text == printed


def test_a_frame_is_printed_by_column_and_format():
    frame = pd.DataFrame({"model": ["a", "b"], "share": [0.5, math.nan], "n": [3, 1200]})
    columns = {
        "Network": ("model", {"a": "first", "b": "second"}),
        "Share": ("share", "+.1f"),
        "Both": (["model", "n"], "{} of {}".format),
        "As it is": "n",
    }
    table = words.printed(frame, columns)
    assert table.to_dict("list") == {
        "Network": ["first", "second"],
        "Share": ["+0.5", words.DASH],
        "Both": ["a of 3", "b of 1200"],
        "As it is": [3, 1200],
    }
    empty = words.printed(frame[:0], columns)
    assert (list(empty), len(empty)) == (list(columns), 0)
