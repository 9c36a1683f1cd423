"""One quantity has one value, on whatever page it stands and by whatever way it was computed.

A quantity is known by its name: what was measured, of which network, with which penalty or
comparison and, where they are named, on which data and at which sampling ratio. Tables of the
executed notebooks and the parts of the claims that have the same name must show the same number.
"""

import json
import re
from collections import defaultdict
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from companion import claims, tables

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"[+\u2212]?\d+\.\d+(?=[\s*;]|$)")
#: Columns whose numbers are settings.
SETTINGS = {"Ratio", "Weight", "Lambda", "Batch", "Members"}
METHODS = sorted(tables.METHOD_NAMES.values(), key=len, reverse=True)
#: Kind of word -> word -> how it is written.
WORDS = {
    "what": {"time of a step": r"\bstep\b|times as long"}
    | {name: re.escape(name) for name in sorted(tables.METRIC_NAMES.values(), key=len)},
    "network": {name: re.escape(name) for name in tables.MODEL_NAMES.values()},
    "penalty": {
        "released recipe": "released recipe",
        "this package": "this package|varreg",
        "released recipe against itself": "released recipe.* against released recipe",
        "the same": "no penalty, again|same step twice",
    }
    | {
        f"{one} against {other}": rf"{one} (\u2212|against) {other}"
        for one in METHODS
        for other in METHODS
    },
    "ratio": {"0.2": r"ratio 0\.2|published ratio", "1": r"all features|ratio 1\b"},
    "data": {"PneumoniaMNIST": "pneumoniamnist", "by image": "by image", "by lesion": "by lesion"},
}
#: Compiled once: there are more of them than the cache of `re` holds.
PATTERNS = {
    kind: {word: re.compile(how.lower()) for word, how in words.items()}
    for kind, words in WORDS.items()
}


class Tables(HTMLParser):
    """The tables of a page as lists of rows of texts."""

    def __init__(self):
        super().__init__()
        self.found, self.cell = [], None

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.found.append([])
        elif tag == "tr":
            self.found[-1].append([])
        elif tag in ("td", "th"):
            self.cell = ""

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.found[-1][-1].append(self.cell.strip())
            self.cell = None


@cache
def name(text):
    """The words that name a quantity, or nothing if they do not suffice to tell it from others."""
    text, found = text.lower(), {}
    for kind, words in PATTERNS.items():
        # The longest name counts: a balanced accuracy is no accuracy.
        matches = [word for word, how in words.items() if how.search(text)]
        if matches:
            found[kind] = max(matches, key=len)
    return frozenset(found.items()) if {"what", "network", "penalty"} <= set(found) else None


def in_table(rows):
    """Names and numbers of one table."""
    head, *lines = rows
    if not head or head[0] == "Claim":  # whose parts are asked for themselves
        return
    columns = [[line[place] for line in lines] for place in range(len(head))]
    labels = [
        place
        for place, cells in enumerate(columns)
        if head[place] in SETTINGS or any(cell[:1].isalpha() for cell in cells)
    ]
    # A table of steps says in its first row, in milliseconds, what it is about.
    about = "step" if any(re.search(r"\d ms", cell) for line in lines for cell in line) else ""
    for line in lines:
        where = " | ".join(f"{head[place]} {line[place]}" for place in labels)
        for place, cell in enumerate(line):
            if place not in labels and (number := NUMBER.match(cell)):
                yield name(f"{about} | {where} | {head[place]}"), number[0]


def on_pages(folder):
    """Names and numbers of all tables of the executed notebooks, with the page."""
    for page in sorted(folder.glob("*.ipynb")):
        for cell in json.loads(page.read_text("utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                parser = Tables()
                parser.feed("".join(output.get("data", {}).get("text/html", "")))
                for rows in parser.found:
                    for key, number in in_table(rows):
                        yield key, number, page.stem


def in_claims(records):
    """Names and numbers of the parts of all claims."""
    for judgement in claims.judge(records):
        claim = judgement.claim
        study, reference = claim.by.get("study"), claim.by.get("reference", "baseline")
        data, of = "", claim.what
        if claim.rule == "difference":
            first = records[study].runs.iloc[0]
            split = claim.by.get("split") or first["split"]
            data = tables.data_name(first["dataset"], split, first["size"])
        for second, parts in enumerate((judgement.parts, judgement.chosen)):
            if claim.rule == "difference":
                method = tables.METHOD_NAMES["tuned" if second else "penalized"]
                of = f"{method} against {tables.METHOD_NAMES[reference]}"
            elif second:
                of = claim.what.replace("published ratio", "all features")
            for part in parts:
                if number := NUMBER.match(part.text):
                    text = f"{data} | {of} | {part.label} | {part.network}"
                    # As a share that is added, the time of a step is the same quantity.
                    added = "added to a step, %" in part.label
                    yield name(text), _added(number[0]) if added else number[0], claim.id


def _added(percent):
    return f"{1 + float(percent.replace(chr(0x2212), '-')) / 100:.3f}"


def disagreements(quantities):
    """Names that stand for several numbers, as far as they are printed."""
    found = defaultdict(dict)
    for key, number, where in quantities:
        if key is not None:
            found[key].setdefault(number.lstrip("+"), where)
    lines = []
    for key, numbers in found.items():
        digits = min(len(number.partition(".")[2]) for number in numbers)
        values = [float(number.replace("\u2212", "-")) for number in numbers]
        if max(values) - min(values) > 0.5001 * 10**-digits:  # more than rounding does
            lines.append(f"{', '.join(sorted(dict(key).values()))}: {numbers}")
    return lines


@pytest.fixture(scope="module")
def quantities():
    return [*on_pages(ROOT / "notebooks"), *in_claims(claims.recorded(ROOT / "results"))]


def test_no_quantity_has_two_values(quantities):
    assert not disagreements(quantities)


def test_quantities_are_found_on_several_pages(quantities):
    """Or else nothing was compared."""
    places = defaultdict(set)
    for key, _, where in quantities:
        places[key].add(where)
    del places[None]
    step = frozenset(
        {
            "what": "time of a step",
            "network": "small CNN",
            "penalty": "released recipe",
            "ratio": "0.2",
        }.items()
    )
    assert places[step] >= {"04_published_numbers", "10_cost", "overhead"}
    several = {dict(key)["what"] for key, where in places.items() if len(where) > 1}
    assert {"test accuracy", "test cross-entropy", "gap in cross-entropy"} <= several


def test_two_values_of_a_quantity_are_found():
    """As it was: a probe and a benchmark measured the same step, and a claim used the probe."""
    cost = [["Penalty", "small CNN, 28 px"], ["no penalty", "9.64 ms"]]
    cost.append(["released recipe, ratio 0.2", "1.053 [1.036, 1.077]"])
    probe = [["Network", "Ratio", "Step, released recipe"], ["small CNN", "0.2", "1.02"]]
    facts = [(*fact, page) for page, rows in enumerate((cost, probe)) for fact in in_table(rows)]
    assert len(disagreements(facts)) == 1
    probe[1][2] = "1.05"
    facts = [(*fact, page) for page, rows in enumerate((cost, probe)) for fact in in_table(rows)]
    assert disagreements(facts) == []
    part = name("Step with the released recipe at the published ratio | added | small CNN")
    assert disagreements([*facts, (part, _added("+2.0"), "claim")])
