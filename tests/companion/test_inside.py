"""What a network learns: pairs of seeds, differences, and what the page says of them."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion import inside
from companion.probes import units
from companion.probes.inside import ARMS, SEEDS
from varreg.lab.ledger import Ledger
from varreg.lab.statistics import mean_interval


def pairs_of(values, kernel):
    return pd.DataFrame(
        [
            {"seed": i, "other_seed": j, "cka": kernel(values[i], values[j])}
            for i, j in combinations(range(len(values)), 2)
        ]
    )


def test_pseudovalues_of_a_known_u_statistic():
    # The mean of (x - y)^2 / 2 over pairs is the sample variance.
    x = np.random.default_rng(0).normal(size=9)
    found = inside.pseudovalues(pairs_of(x, lambda a, b: (a - b) ** 2 / 2), "cka")
    assert found.mean() == pytest.approx(x.var(ddof=1))
    left_out = [np.delete(x, i).var(ddof=1) for i in range(9)]
    np.testing.assert_allclose(found, 9 * x.var(ddof=1) - 8 * np.array(left_out))
    # Of a mean of sums, the pseudovalue of a seed is twice its own value.
    found = inside.pseudovalues(pairs_of(x, lambda a, b: a + b), "cka")
    np.testing.assert_allclose(found, 2 * x)


def test_the_interval_over_pseudovalues_covers():
    random, covered = np.random.default_rng(0), 0
    for _ in range(300):
        pairs = pairs_of(random.normal(size=(10, 3)), lambda a, b: a.mean() + b.mean() + a @ b)
        pairs["cka"] += 0.3 * random.normal(size=len(pairs))
        covered += 0 in mean_interval(inside.pseudovalues(pairs, "cka"))
    assert covered / 300 > 0.92


@pytest.mark.parametrize(
    "change",
    [lambda p: p.iloc[1:], lambda p: pd.concat([p.iloc[1:], p.iloc[:1]]).iloc[[0, 0, 1]]],
)
def test_pairs_that_are_missing_or_come_twice(change):
    pairs = pairs_of(np.arange(3.0), lambda a, b: a + b)
    with pytest.raises(ValueError, match="give each pair of 3 or more seeds once"):
        inside.pseudovalues(change(pairs), "cka")


# ---------------------------------------------------------------- the page

#: What is made up: shifts of CKA, flipped answers and Grad-CAM.
SHIFTS = {"fixed": (0.2, -0.1, 0.05), "feature_l2": (0.2, 0.2, -0.05)}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Ledgers of all three probes, made up, in which some methods differ from none."""
    folder = tmp_path_factory.mktemp("results")
    random = np.random.default_rng(0)
    provenance = {"version": "0", "commit": "", "dataset_sha256": "0", "torch_version": "2"}
    provenance |= {"device": "a CPU", "threads": 1, "seconds": 1.0, "recorded_at": "now"}
    for unit in [*units("inside"), *units("nuisance"), *units("scales")]:
        row = {"key": unit.key, "study": unit.study, **unit.setting}
        if unit.study == "scales":
            rows = [{"epoch": 20} | _scales(unit, random)]
        else:
            rows = _inside(unit, random)
        if unit.study == "nuisance":
            row |= {"lesion_area": 0.1, "marker_area": 0.015, "lesions": 299}
        Ledger(unit.study, folder).append(row | provenance, rows)
    return folder


def _inside(unit, random):
    cka, flipped, cam = SHIFTS.get(unit.setting["method"], (0, 0, 0))
    names = [*inside.MEASURES][2:]
    if unit.study == "inside":
        names = names[names.index("effective_rank") :]
    names = [*names, *(f"share_{place}" for place in range(2, 11))]
    rows = []
    for seed in SEEDS:
        values = {name: 0.5 + 0.02 * random.normal() for name in names}
        if unit.study == "nuisance":
            values["flipped"] += flipped
            values["cam_lesion"] += cam
        rows.append({"kind": "seed", "seed": seed, "best_epoch": 3, **values})
        sizes = {"feature_rms": 1.0 + random.random(), "head_norm": 2.0}
        rows += [{"kind": "epochs", "seed": seed, "epochs": at, **sizes} for at in (0, 6)]
    for i, j in combinations(SEEDS, 2):
        row = {"kind": "pair", "seed": i, "other_seed": j, "disagree": 0.1}
        rows.append(row | {"cka": 0.5 + cka + 0.02 * random.normal()})
    return rows


def _scales(unit, random):
    on = unit.setting["method"] == "fixed"
    found = {"feature_variance": 0.5**on, "relative_variance": 0.4, "head_norm": 1.5}
    if unit.setting["model"] != "small_cnn":
        found |= {"scale_rms": 0.7**on, "normalized_variance": 0.4 + 0.01 * random.random()}
    return found


def test_differences_are_paired_and_corrected(results):
    seeds = inside.recorded(results)["seed"]
    assert len(seeds) == 3 * len(ARMS) * len(SEEDS)
    found = inside.differences(seeds)
    for measure, (_, dataset) in inside.QUESTIONS.items():
        mine = found[(found["measure"] == measure) & (found["dataset"] == dataset)]
        wide = seeds[seeds["dataset"] == dataset].pivot(
            index="seed", columns="method", values=measure
        )
        raw = {name: stats.ttest_rel(wide[name], wide["none"]).pvalue for name in inside.OTHERS}
        mine = mine.set_index("method")
        assert list(mine.index) == list(inside.OTHERS)
        for name in inside.OTHERS:
            assert mine.loc[name, "mean"] == pytest.approx((wide[name] - wide["none"]).mean())
            assert mine.loc[name, "p"] == pytest.approx(raw[name])
        least = min(raw, key=raw.get)
        assert mine.loc[least, "p_holm"] == pytest.approx(min(1, 8 * raw[least]))
    others = found[~found["measure"].isin(inside.QUESTIONS)]
    assert others["p_holm"].isna().all()
    # Over all pairs, the mean of the pseudovalues is that of the pairs.
    rows = Ledger("inside", results).curves()
    of_pairs = rows.loc[rows["kind"] == "pair", "cka"].groupby(rows["key"]).mean()
    assert seeds.loc[seeds["dataset"] == "breastmnist", "cka"].mean() == pytest.approx(
        of_pairs.mean()
    )


def test_words_follow_from_the_differences(results):
    every = inside.recorded(results)
    found = inside.differences(every["seed"])
    facts = inside.facts(every["seed"], found, every["unit"])
    # Noise alone lies within the plan's smallest effect of CKA, and not within those of the others.
    unseen = "no difference that could be seen"
    nothing = {"stable": "too little to matter", "led": unseen, "relevant": unseen}
    for question in ("stable", "led", "relevant"):
        assert facts[f"learns_{question}_fixed"] == "better"
        assert facts[f"learns_{question}_published"] == nothing[question]
    assert facts["learns_stable_feature_l2"] == "better"
    assert facts["learns_led_feature_l2"] == facts["learns_relevant_feature_l2"] == "worse"
    assert facts["learns_yes"] == "yes"
    assert facts["learns_phantom_seeds"] == len(SEEDS)
    assert (facts["learns_lesion_area"], facts["learns_marker_area"]) == ("10 %", "1.5 %")
    table = inside.said_table(found).set_index("Method")
    assert table.loc["Feature L2"].tolist() == ["better", "worse", "worse"]
    assert table.loc["Dropout on the features"].tolist() == list(nothing.values())
    without = found[~((found["method"] == "fixed") & (found["measure"] == "cka"))]
    assert inside.facts(every["seed"], without, every["unit"])["learns_yes"] == "no"
    texts = found.set_index(["dataset", "method", "measure"])["text"]
    for names, text in texts.items():
        assert facts["learns_" + "_".join(names)] == text.rstrip("*")


def said(mean: float, p_holm: float, measure: inside.Measure, p: float = 0.5) -> str:
    row = {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "p": p, "p_holm": p_holm}
    return inside._said(row, measure)


def test_what_is_neither_better_nor_worse():
    neither, less = inside.Measure("size"), inside.Measure("loss", -1)
    assert said(0.1, 0.01, neither) == "more"
    assert said(-0.1, 0.01, neither) == "less"
    assert said(-0.1, 0.01, less) == "better"
    assert said(0.1, 0.01, less) == "worse"
    assert said(-0.1, 0.06, less) == said(0.1, np.nan, less)
    assert said(-0.1, np.nan, less, p=0.01) == "better"  # where nothing is corrected


@pytest.mark.parametrize(("least", "word"), [(0.16, "better"), (0.17, "too little to matter")])
def test_what_lies_within_the_smallest_effect_of_the_plan_is_too_little(least, word):
    assert said(0.115, 0.001, inside.Measure("CKA", 1, least=least)) == word
