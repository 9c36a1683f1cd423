"""The few numbers that the package quotes, against the recorded runs that they are of."""

from __future__ import annotations

import os

import pandas as pd
import pytest
from medmnist import INFO

from companion import tables, verdicts, when
from companion.studies import few_images, rivals
from companion.studies.rivals_tuning import BLOCKS, chosen_strengths
from varreg.evidence import (
    EVIDENCE,
    HEAD_WEIGHT,
    LONGER,
    NEGLIGIBLE,
    NORMALIZED,
    PAPER,
    STRENGTH,
    Evidence,
    Gain,
)
from varreg.lab.ledger import Ledger
from varreg.lab.runs import load_data
from varreg.weights import GradientRatio


def gain(runs: pd.DataFrame, metric: str, method: str, reference: str = "baseline") -> Gain:
    found = tables.difference(runs, metric, method, reference)
    return Gain(*(round(value, 4) for value in (found.mean, found.low, found.high)), found.n)


def beside(dataset: str) -> Gain:
    """On top of augmentation, at the one strength for all data sets."""
    runs = Ledger("one_default").runs().query("dataset == @dataset")
    runs = runs[runs["augment"] | (runs["method"] == "augmented")]
    return gain(runs, "test_cross_entropy", "self_setting", "augmented")


def of_breast() -> Evidence:
    alone, top = BLOCKS[:2]
    runs = Ledger("rivals").runs()
    keys = {block: {spec.key for spec in rivals.block_specs(block)} for block in BLOCKS[:2]}
    plain, augmented = (runs[runs["key"].isin(keys[block])] for block in BLOCKS[:2])
    both = pd.concat([plain, augmented[augmented["method"] == "augmented"]])
    assert (alone.augment, top.augment) == (False, True)
    return Evidence(
        "BreastMNIST",
        INFO[alone.dataset]["n_samples"]["train"],
        cross_entropy=gain(plain, "test_cross_entropy", "self_setting"),
        auroc=gain(plain, "test_auroc", "self_setting"),
        augmentation=gain(both, "test_cross_entropy", "augmented"),
        feature_l2=gain(plain, "test_cross_entropy", "feature_l2"),
        beside=beside(alone.dataset),
    )


DATA = {"PneumoniaMNIST": "pneumoniamnist", "HAM10000": "ham10000"}
SHARES = [(data, share) for data in DATA for share in few_images.SHARES]


def test_what_is_quoted_of_breastmnist_is_what_was_recorded():
    assert EVIDENCE[0] == of_breast(), "write into varreg/evidence.py what follows from the runs"


@pytest.mark.parametrize("place", range(len(SHARES)))
def test_what_is_quoted_of_shares_is_what_was_recorded(place):
    data, share = SHARES[place]
    runs = when.recorded("few_images")[DATA[data]]
    runs = runs[runs["train_share"] == share]
    recorded = Evidence(
        data,
        EVIDENCE[1 + place].images,
        cross_entropy=gain(runs, "test_cross_entropy", "self_setting", "none"),
        auroc=gain(runs, "test_auroc", "self_setting", "none"),
        augmentation=gain(runs, "test_cross_entropy", "augmented", "none"),
        feature_l2=gain(runs, "test_cross_entropy", "feature_l2", "none"),
        beside=beside(DATA[data]) if share == 1 else None,
    )
    assert EVIDENCE[1 + place] == recorded, "write into varreg/evidence.py what follows"


@pytest.mark.data
def test_a_share_has_as_many_images_as_is_quoted():
    if not os.environ.get("VARREG_DATA"):
        pytest.skip("VARREG_DATA does not name a folder with the real data")
    for (data, share), one in zip(SHARES, EVIDENCE[1:], strict=True):
        spec = few_images.settings("few_images", DATA[data], "none", 0, train_share=share)
        assert one.images == len(load_data(spec).train.labels)


@pytest.mark.parametrize(
    ("one", "model"),
    list(zip([*NORMALIZED, PAPER], ["small_cnn_norm", "small_resnet", "paper_cnn"], strict=True)),
)
def test_what_is_quoted_of_other_networks_is_what_was_recorded(one, model):
    runs = when.recorded("networks")["breastmnist"]
    runs = runs[runs["model"] == model]
    gains = (gain(runs, "test_cross_entropy", name, "none") for name in NAMES)
    assert one[1:] == tuple(gains), "write into varreg/evidence.py what follows from the runs"


NAMES = ("self_setting", "head_weighted")


def test_what_is_quoted_of_longer_training_is_what_was_recorded():
    runs = when.recorded("longer")["breastmnist"]
    runs = runs[runs["epochs"] == runs["epochs"].max()]
    assert gain(runs, "test_cross_entropy", "self_setting", "none") == LONGER


def test_the_strengths_are_those_of_the_studies():
    given = few_images.ARMS
    assert tuple(given[name]["strength"] for name in NAMES) == (STRENGTH, HEAD_WEIGHT)
    assert chosen_strengths(BLOCKS[0])["self_setting"] == STRENGTH


def test_a_negligible_change_is_that_of_the_plan():
    assert verdicts.MARGIN == NEGLIGIBLE


def test_a_weight_that_sets_itself_starts_with_what_validation_chose():
    assert GradientRatio().rho == STRENGTH == chosen_strengths(BLOCKS[0])["self_setting"]
