"""The few numbers that the package quotes, against the recorded runs that they are of."""

from __future__ import annotations

import os

import pandas as pd
import pytest
from medmnist import INFO

from companion import rivals as page
from companion import tables, when
from companion.studies import few_images, rivals
from companion.studies.rivals_tuning import BLOCKS, chosen_strengths
from varreg.advice import RHO
from varreg.evidence import EVIDENCE, NEGLIGIBLE, Evidence, Gain
from varreg.lab.ledger import Ledger
from varreg.lab.runs import RunSpec, load_data
from varreg.weights import GradientRatio


def gain(runs: pd.DataFrame, metric: str, method: str, reference: str = "baseline") -> Gain:
    found = tables.difference(runs, metric, method, reference)
    return Gain(*(round(value, 4) for value in (found.mean, found.low, found.high)), found.n)


def of_breast() -> Evidence:
    alone, beside = BLOCKS[:2]
    runs = Ledger("rivals").runs()
    keys = {block: {spec.key for spec in rivals.block_specs(block)} for block in BLOCKS[:2]}
    plain, augmented = (runs[runs["key"].isin(keys[block])] for block in BLOCKS[:2])
    both = pd.concat([plain, augmented[augmented["method"] == "augmented"]])
    assert (alone.augment, beside.augment) == (False, True)
    return Evidence(
        "BreastMNIST",
        INFO[alone.dataset]["n_samples"]["train"],
        "self_setting",
        chosen_strengths(alone)["self_setting"],
        cross_entropy=gain(plain, "test_cross_entropy", "self_setting"),
        auroc=gain(plain, "test_auroc", "self_setting"),
        augmentation=gain(both, "test_cross_entropy", "augmented"),
        beside=gain(augmented, "test_cross_entropy", "self_setting", "augmented"),
        feature_l2=gain(plain, "test_cross_entropy", "feature_l2"),
    )


def of_chest() -> Evidence:
    runs = Ledger("chest").runs()
    runs = runs[runs["model"] == "small_cnn"]
    (weight,) = runs.loc[runs["method"] == "tuned", "variance_weight"].unique()
    return Evidence(
        "PneumoniaMNIST",
        INFO["pneumoniamnist"]["n_samples"]["train"],
        "tuned",
        weight,
        cross_entropy=gain(runs, "test_cross_entropy", "tuned"),
        auroc=gain(runs, "test_auroc", "tuned"),
        augmentation=gain(runs, "test_cross_entropy", "augmented"),
    )


def skin(name: str, seed: int = 0) -> RunSpec:
    return few_images.settings("few_images", "ham10000", name, seed, train_share=0.25)


def of_skin() -> Evidence:
    runs = when.recorded("few_images")["ham10000"]
    runs = runs[runs["train_share"] == 0.25]
    gains = {
        name: gain(runs, "test_cross_entropy", name, "none")
        for name in ("self_setting", "augmented", "feature_l2")
    }
    return Evidence(
        "a quarter of HAM10000",
        EVIDENCE[1].images,
        "self_setting",
        skin("self_setting").strength,
        cross_entropy=gains["self_setting"],
        auroc=gain(runs, "test_auroc", "self_setting", "none"),
        augmentation=gains["augmented"],
        feature_l2=gains["feature_l2"],
    )


@pytest.mark.data
def test_a_quarter_of_the_skin_lesions_is_as_many():
    if not os.environ.get("VARREG_DATA"):
        pytest.skip("VARREG_DATA does not name a folder with the real data")
    assert EVIDENCE[1].images == len(load_data(skin("none")).train.labels)


@pytest.mark.parametrize("place", range(len(EVIDENCE)))
def test_what_is_quoted_is_what_was_recorded(place):
    recorded = (of_breast, of_skin, of_chest)[place]()
    assert EVIDENCE[place] == recorded, "write into varreg/evidence.py what follows from the runs"


def test_a_negligible_change_is_that_of_the_plan():
    assert page.NEGLIGIBLE == NEGLIGIBLE


def test_what_is_suggested_is_what_validation_chose():
    assert pytest.approx(chosen_strengths(BLOCKS[0])["self_setting"], rel=0.2) == RHO
    assert GradientRatio().rho == RHO
