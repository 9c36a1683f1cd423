"""The table of disagreements: nothing left out, and what we did as the runs say it."""

from __future__ import annotations

import dataclasses
import re
from functools import partial

import pandas as pd
import pytest

from companion import protocol, published
from companion.studies import ambiguities, chest_paper, skin_paper
from varreg.lab.specs import RunSpec


def rows(specs):
    """As a ledger has them, where what is not set is NaN."""
    return pd.DataFrame([dataclasses.asdict(spec) for spec in specs]).astype({"patience": float})


BASE = partial(RunSpec, study="s", method="baseline")
PROTOCOL = {"chest": rows(chest_paper.specs()), "skin": rows(skin_paper.specs())}
PAIRED = {
    "chest": rows([BASE(dataset="pneumoniamnist", seed=0, epochs=15)]),
    "skin": rows(
        BASE(dataset="ham10000", split=split, seed=seed, epochs=10)
        for split in ("paper", "lesion")
        for seed in (0, 1)
    ),
}
ALL = pd.DataFrame([dataclasses.asdict(each) for each in ambiguities.ALTERNATIVES])
EMPTY = {"chest": pd.DataFrame(), "skin": pd.DataFrame()}


@pytest.fixture(scope="module")
def table():
    return protocol.ambiguities_table(PROTOCOL, PAIRED, ALL).set_index("Topic")


def test_every_topic_of_the_sources_has_an_answer_of_ours():
    names = [topic.name for topic in protocol.topics()]
    assert len(set(names)) == len(names)
    for topic in protocol.topics():
        assert topic.fields or topic.protocol, topic.name
        assert set(topic.experiments) <= set(published.EXPERIMENTS), topic.name


def test_every_alternative_that_was_run_stands_in_the_table(table):
    for alternative in ambiguities.ALTERNATIVES:
        if alternative.choice == ambiguities.AS_RELEASED:
            continue
        topics = [
            topic.name
            for topic in protocol.topics()
            if set(alternative.settings) & set(topic.fields)
            and alternative.experiment in topic.experiments
        ]
        assert topics, alternative
        for topic in topics:
            shown = table.loc[topic, "Tested"].replace("&#x27;", "'")
            assert alternative.choice in shown
            assert "not run" not in shown


def test_our_runs_of_the_protocol_do_what_the_notebooks_do(table):
    ours = table["Our runs of the protocol"]
    released = {topic.name: topic.released for topic in protocol.topics()}
    assert ours["epochs, chest"] == released["epochs, chest"]
    for topic in ("epochs, skin", "batch size"):
        assert ours[topic] == released[topic]
    assert ours["learning rate"] == released["learning rate"].split(";")[0]
    assert released["patience"].startswith(ours["patience"])
    assert float(ours["Adam's epsilon"]) == float(released["Adam's epsilon"].split()[-1])
    numbers = re.findall(r"[\d.]+", released["penalized setting"])
    assert ours["penalized setting"] == ", ".join(numbers)
    assert ours["preprocessing"] == "224 pixels, divided by 255, no contrast enhancement"


def test_the_paired_studies_are_read_off_their_runs(table):
    ours = table["Our paired studies"]
    assert ours["patience"] == "no stopping"
    assert ours["splits, skin"] == "HAM10000, by image, by lesion"
    assert ours["seeds"] == "chest: 1; skin: 2"
    assert ours["learning rate"] == "Adam, 0.001"


def test_an_alternative_that_was_not_run_is_not_called_tested():
    without = ALL[ALL["topic"] != "depth"]
    table = protocol.ambiguities_table(PROTOCOL, PAIRED, without).set_index("Topic")
    assert table.loc["depth, skin", "Tested"] == "a third pair of convolutions (not run)"
    assert "not run" not in table.loc["patience", "Tested"]


def test_values_that_differ_between_methods_are_named():
    runs = pd.DataFrame({"method": ["baseline", "augmented"], "batch_size": [32, 64]})
    assert protocol.done(runs, ["batch_size"]) == "32 baseline, 64 augmented"


def test_without_runs_there_is_a_dash_and_no_failure():
    table = protocol.ambiguities_table(EMPTY, EMPTY, ALL[:0])
    assert len(table) == len(protocol.topics())
    assert set(table.loc[table["Topic"] == "batch size", "Our paired studies"]) == {"\u2013"}
