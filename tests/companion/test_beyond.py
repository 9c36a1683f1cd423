"""The page on what the paper leaves for later."""

import dataclasses
import json
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion.beyond import (
    ablation,
    comparison,
    effects,
    multimodal,
    pretraining,
    transformer,
    volumes,
    wishes,
)
from companion.probes import units
from companion.studies import specs
from companion.verdicts import MARGIN
from tests.companion.notebooks import NOTEBOOKS, run

EFFECTS = {"none": 0.0, "baseline": 0.0, "fixed": -0.05, "tuned": -0.05, "feature_l2": 0.06}


def scores(random, seed, effect):
    """Outcomes that differ between seeds more than between methods."""
    loss = 0.5 + 0.1 * np.sin(seed) + effect + 0.004 * random.standard_normal()
    return {"test_cross_entropy": loss, "test_auroc": 1 - loss, "test_accuracy": 1 - loss / 2}


@pytest.fixture
def ledgers(monkeypatch):
    """Ledgers that hold made-up rows of everything that the page needs; change them as you like."""
    random, made = np.random.default_rng(0), {}
    for study in ("beyond", "few_images"):
        rows = [
            dataclasses.asdict(spec)
            | {"key": spec.key}
            | scores(random, spec.seed, EFFECTS.get(spec.method, 0.0))
            for spec in specs(study)
        ]
        made[study] = [pd.DataFrame(rows), pd.DataFrame(columns=["key"])]
    for probe in ("phantom_volumes", "multimodal", "pretraining", "ablation"):
        rows, found = [], []
        for unit in units(probe):
            given = unit.setting
            name = given.get("method", given.get("penalty", "none"))
            row = {"key": unit.key, "study": probe, **given}
            row |= {"images": 100 + given["seed"], "without_age": 3, "features": 20, "vary": 20}
            row |= {"variance_random": 0.1, "variance_pretrained": 0.4}
            rows.append(row | scores(random, given["seed"], EFFECTS.get(name, 0.0)))
            if probe == "pretraining":
                rows[-1] = row
                for place, method in enumerate(("none", "fixed", "self_setting")):
                    more = {"key": unit.key, "method": method, "feature_variance": 0.2 * 2**-place}
                    more["best_epoch"] = 91 if given["seed"] < 5 * place else 90
                    found.append(more | scores(random, given["seed"], EFFECTS.get(method, 0.0)))
            for order in ("variance", "head_weighted", "random") if probe == "ablation" else ():
                for tenth in range(1, 11):
                    gap = 0.01 * tenth * (order == "variance")
                    area = 0.7 + 0.001 * random.standard_normal()
                    more = {"key": unit.key, "order": order, "tenth": tenth, "variance": tenth}
                    more |= {"train_area": area + gap, "test_area": area}
                    loss = rows[-1]["test_cross_entropy"] + 0.02 * tenth * (order != "random")
                    found.append(more | {"test_cross_entropy": loss})
        made[probe] = [pd.DataFrame(rows), pd.DataFrame(found or {"key": []})]

    def ledger(study, results=None):
        runs, rows = made.get(study, [pd.DataFrame(), pd.DataFrame(columns=["key"])])
        return SimpleNamespace(runs=lambda: runs, curves=lambda: rows)

    monkeypatch.setattr(effects, "Ledger", ledger)
    return made


WISHES = {
    "beyond": (volumes, transformer),
    "phantom_volumes": (volumes,),
    "multimodal": (multimodal,),
    "pretraining": (pretraining,),
}


def every(modules=(volumes, multimodal, pretraining, transformer)):
    return [section for module in modules for section in module.sections()]


def test_differences_are_paired_and_corrected_section_by_section(ledgers):
    found = every()
    assert [section.name for section in found] == [
        "volumes", "phantoms", "multimodal", "pretraining", "transformer"
    ]  # fmt: skip
    for section in found:
        primary = section.differences.query("measure == 'test_cross_entropy'").set_index("pair")
        assert list(primary.index) == [pair.name for pair in section.pairs]
        wide = section.runs.pivot(index="seed", columns="method", values="test_cross_entropy")
        raw = {}
        for pair in section.pairs:
            first, second = wide[pair.method], wide[pair.against]
            raw[pair.name] = stats.ttest_rel(first, second).pvalue
            assert primary.loc[pair.name, "mean"] == pytest.approx((first - second).mean())
            assert primary.loc[pair.name, "p"] == pytest.approx(raw[pair.name])
            assert primary.loc[pair.name, "n"] == len(wide)
        least = min(raw, key=raw.get)
        assert primary.loc[least, "p_holm"] == pytest.approx(len(raw) * raw[least])
        others = section.differences.query("measure != 'test_cross_entropy'")
        assert others["p_holm"].isna().all()
        assert primary.loc["fixed", "reads"] == "lower"
    assert found[0].of("feature_l2")["reads"] == "higher"


@pytest.mark.parametrize("study", WISHES)
def test_a_wish_of_which_a_run_is_missing_is_not_shown(ledgers, study):
    modules = WISHES[study]
    before = {section.name for section in every(modules)}
    runs, rows = ledgers[study]
    ledgers[study] = [runs.iloc[:-1], rows]
    after = {section.name for section in every(modules)}
    assert len(before - after) == 1
    ledgers[study] = [pd.DataFrame(), pd.DataFrame(columns=["key"])]
    assert len(every(modules)) == len(before) - len(before & {*WISHES_OF[study]})


WISHES_OF = {
    "beyond": ("volumes", "transformer"),
    "phantom_volumes": ("phantoms",),
    "multimodal": ("multimodal",),
    "pretraining": ("pretraining",),
}


def test_pre_training_needs_the_runs_from_random_weights(ledgers):
    runs, rows = ledgers["few_images"]
    key = pretraining.supervised("fixed", 3).key
    ledgers["few_images"] = [runs[runs["key"] != key], rows]
    assert pretraining.sections() == []


def test_pre_training_is_beside_the_same_seeds_without_it(ledgers):
    (section,) = pretraining.sections()
    few = ledgers["few_images"][0].set_index("key")
    details = ledgers["pretraining"][1]
    own = {unit.key: unit.setting["seed"] for unit in units("pretraining")}
    changes = []
    for row in details[details["method"] == "none"].to_dict("records"):
        before = few.loc[pretraining.supervised("none", own[row["key"]]).key]
        changes.append(row["test_cross_entropy"] - before["test_cross_entropy"])
    assert section.of("start")["mean"] == pytest.approx(np.mean(changes))
    facts = pretraining.facts(section)
    assert facts["beyond_pretraining_variance_without_labels"].startswith("4.00 ")
    assert facts["beyond_pretraining_variance_none"].startswith("0.50 ")
    assert facts["beyond_pretraining_variance_fixed"].startswith("0.25 ")
    late = [facts[f"beyond_pretraining_late_{name}"] for name in ("none", "fixed", "self_setting")]
    assert late == ["0 %", "50 %", "100 %"]


def test_the_table_says_what_the_facts_say(ledgers):
    for section in every():
        shown, facts = effects.table(section), effects.facts([section])
        assert len(shown) == len(section.pairs)
        for pair, row in zip(section.pairs, shown.to_dict("records"), strict=True):
            head = f"beyond_{section.name}_{pair.name}"
            assert row["Cross-entropy"].rstrip("*") == facts[head]
            assert row["AUROC"] == facts[f"{head}_auroc"]
            assert row["Accuracy"] == facts[f"{head}_accuracy"]
            assert facts[f"{head}_says"] == effects.SAYS[row["Reads"]]
            stands = row["Cross-entropy"].endswith("*")
            assert stands == (section.of(pair.name)["p_holm"] < 0.05)
        assert facts[f"beyond_{section.name}_seeds"] == section.runs["seed"].nunique()
    (section,) = multimodal.sections()
    facts = multimodal.facts(section)
    assert facts == {"beyond_multimodal_training_images": 109, "beyond_multimodal_without_age": 3}


def test_the_figure_has_a_row_for_each_effect_of_the_penalty(ledgers):
    found = every()
    figure = effects.forest(found)
    (ax,) = figure.axes
    labels = [label.get_text() for label in ax.get_yticklabels()]
    shown = {
        labels.index(f"{section.title[:1].upper()}{section.title[1:]}") + place: (section, pair)
        for section in found
        for place, pair in enumerate([pair for pair in section.pairs if pair.drawn], 1)
    }
    assert len(shown) == 3 + 3 + 4 + 3 + 4 == len(labels) - len(found)
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    for (place, (section, pair)), mark in zip(shown.items(), marks, strict=True):
        row = section.of(pair.name)
        assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (row["mean"], place)
        assert (mark.get_markerfacecolor() == "white") == (row["p_holm"] >= 0.05)
        assert labels[place] == pair.title
    plt.close(figure)
    assert effects.forest([]).axes[0].texts


# ---------------------------------------------------------------- features


def test_features_tenth_by_tenth(ledgers):
    found = ablation.recorded()
    assert list(found) == ["breastmnist", "pneumoniamnist"]
    rows = found["breastmnist"]
    assert set(rows["dataset"]) == {"breastmnist"}
    losses = ablation.by_tenth(rows, "variance", "loss")
    assert [each.mean for each in losses] == pytest.approx([0.02 * k for k in range(1, 11)])
    more = ablation.ends(rows, "variance", "gap")
    assert (more.mean, more.n) == (pytest.approx(0.09), 10)
    facts = ablation.facts(found)
    assert facts["beyond_ablation_breastmnist_says"].endswith("high variance carry over worse")
    assert facts["beyond_ablation_pneumoniamnist_variance_loss"].startswith("+0.200")
    assert facts["beyond_ablation_breastmnist_random_loss"].startswith("+0.000")
    assert facts["beyond_ablation_breastmnist_none_gap_high"].startswith("0.100")
    figure = ablation.figure(found)
    assert len(figure.axes) == 4
    np.testing.assert_allclose(
        figure.axes[1].lines[0].get_ydata(), [0.02 * k for k in range(1, 11)], atol=1e-9
    )
    plt.close(figure)


@pytest.mark.parametrize(
    ("sign", "says"), [(-1, "features of high variance carry over better"), (0, "no difference")]
)
def test_whether_features_of_high_variance_carry_over(ledgers, sign, says):
    runs, rows = ledgers["ablation"]
    gap = rows["train_area"] - rows["test_area"]
    wobble = rows.groupby("key").ngroup() % 2 * 0.02 - 0.01
    changed = rows["test_area"] + sign * gap + (sign == 0) * wobble * (rows["tenth"] == 10)
    ledgers["ablation"] = [runs, rows.assign(train_area=changed)]
    facts = ablation.facts(ablation.recorded())
    assert facts["beyond_ablation_breastmnist_says"].startswith(says)


def test_features_of_a_data_set_of_which_a_unit_is_missing_are_not_shown(ledgers):
    runs, rows = ledgers["ablation"]
    ledgers["ablation"] = [runs.iloc[:-1], rows]
    assert list(ablation.recorded()) == ["breastmnist"]
    ledgers["ablation"] = [pd.DataFrame(), pd.DataFrame(columns=["key"])]
    assert ablation.recorded() == {}
    assert ablation.figure({}).axes[0].texts


# ---------------------------------------------------------------- what is recorded already


@pytest.fixture(scope="module")
def compared():
    """The sections of the comparison, by name."""
    found = {each.name: each for each in comparison.sections()}
    if set(found) != {"thresholds", "combination", "weight", "carried"}:
        pytest.skip("the comparison on BreastMNIST or few_images is not recorded")
    return found


def test_the_comparison_is_that_of_its_own_page(compared):
    from companion import rivals
    from companion.studies.rivals_tuning import BLOCKS

    plain = next(each for each in rivals.recorded_blocks() if each.block == BLOCKS[0])
    for name in comparison.THRESHOLDS:
        there = plain.of(rivals.PRIMARY).loc[name]
        here = compared["thresholds"].of(name)
        assert (here["mean"], here["low"]) == (there["mean"], there["low"])


def test_what_the_page_says_of_the_comparison_follows_from_the_runs(compared):
    thresholds, weight = compared["thresholds"], compared["weight"]
    for name in comparison.THRESHOLDS:
        assert thresholds.of(name)["reads"] == "lower"
        assert thresholds.of(f"{name}_tuned")["mean"] > 0, "none beats the fixed weight"
    assert thresholds.of("excess_tuned")["reads"] == "negligible"
    assert compared["combination"].of("self_setting")["reads"] == "negligible"
    assert compared["combination"].of("self_setting")["high"] < 0
    assert abs(compared["combination"].of("self_setting")["mean"]) < MARGIN
    assert "penalty, fixed weight" in comparison.facts()["beyond_combination_off"]
    assert weight.of("self_setting_tuned")["reads"] == "negligible"
    assert compared["carried"].of("self_setting")["reads"] == "lower"


def test_what_the_page_says_of_volumes_follows_from_the_runs():
    found = {section.name: section for section in volumes.sections()}
    if "volumes" not in found:
        pytest.skip("beyond is not recorded on AdrenalMNIST3D")
    assert found["volumes"].of("fixed")["reads"] == "lower"
    best = found["volumes"].runs.groupby("method")["best_epoch"].mean()
    assert best["fixed"] > 16, "of the last epochs of 20"
    assert best["none"] < 12, "of the middle"


def test_what_the_page_says_of_the_table_follows_from_the_units():
    found = multimodal.sections()
    if not found:
        pytest.skip("multimodal is not recorded")
    (section,) = found
    assert (section.differences["p_holm"].dropna() < 0.05).all()
    assert set(section.differences.query("p_holm < 0.05")["reads"]) == {"lower"}
    both, alone = section.of("fixed"), section.of("alone")
    assert abs(both["mean"] - alone["mean"]) < MARGIN, "as much"
    assert section.of("table")["mean"] < min(both["mean"], alone["mean"])


def test_what_the_page_says_of_the_start_follows_from_the_units():
    found = pretraining.sections()
    if not found:
        pytest.skip("pretraining is not recorded")
    (section,) = found
    assert (section.differences["p_holm"].dropna() < 0.05).all()
    assert section.of("fixed", "test_auroc")["low"] > 0
    assert section.of("fixed", "test_accuracy")["high"] < 0
    mine = section.runs[section.runs["method"] == "pretrained fixed"]
    assert (mine["feature_variance"] < mine["variance_pretrained"]).all(), "the later one wins"
    assert (mine["variance_pretrained"] > mine["variance_random"]).all()
    # Much of what the one gives, the other gives too.
    assert section.of("start", "test_auroc")["low"] > 0
    assert section.of("start_fixed")["mean"] > section.of("start")["mean"] / 2
    assert section.of("fixed")["mean"] > section.of("fixed_random")["mean"]


def test_what_the_page_says_of_features_follows_from_the_units():
    found = ablation.recorded()
    if len(found) < 2:
        pytest.skip("ablation is not recorded")
    gaps = {name: ablation.ends(rows, "variance", "gap") for name, rows in found.items()}
    assert 0 < gaps["breastmnist"].low < gaps["breastmnist"].high < 0.02, "a little"
    assert 0 in gaps["pneumoniamnist"], "not visibly"
    for rows in found.values():
        plain, held = (
            ablation.ends(rows, "variance", "test_area", method) for method in ("none", "fixed")
        )
        assert plain.low > 0, "they tell more about the test images"
        assert held.low > plain.high, "under the penalty the order means more"
        without = {order: ablation.by_tenth(rows, order, "loss")[10] for order in ablation.LINES}
        assert without["variance"].low > 0
        assert without["head_weighted"].mean == max(each.mean for each in without.values())
        for tenth in range(2, 11):
            area = ablation.by_tenth(rows, "variance", "test_area")
            assert area[tenth].mean > area[1].mean
    breast = found["breastmnist"]
    highest, chance = (
        ablation.by_tenth(breast, order, "loss")[10] for order in ("variance", "random")
    )
    assert highest.low > chance.high, "more so than at random"


def test_without_the_comparison_there_is_nothing(tmp_path):
    assert comparison.sections(tmp_path) == []
    assert comparison.facts(tmp_path) == {}


# ---------------------------------------------------------------- the page


def test_each_wish_has_its_answer(ledgers):
    found = wishes.sections()
    shown = wishes.answers(found)
    assert len(shown) == sum(name in found for _, name, _ in wishes.WISHES)
    for row, (wish, name, pair) in zip(
        shown.to_dict("records"), [each for each in wishes.WISHES if each[1] in found], strict=True
    ):
        section = found[name]
        assert row["Wish"] == wish
        assert row["Tried on"].lower() == section.title.lower()
        assert row["Cross-entropy is"] == effects.SAYS[section.of(pair)["reads"]]
    assert wishes.answers({}).empty
    assert [len(table) for table in wishes.tables(found, "volumes", "nothing", "phantoms")] == [
        3,
        3,
    ]


def test_no_fact_takes_the_name_of_another(ledgers):
    found = wishes.sections()
    parts = [effects.facts([section]) for section in found.values()]
    parts += [multimodal.facts(found["multimodal"]), pretraining.facts(found["pretraining"])]
    parts += [comparison.facts(), ablation.facts(ablation.recorded())]
    names = [name for part in parts for name in part]
    assert len(names) == len(set(names))
    told = wishes.facts(found) | ablation.facts(ablation.recorded())
    assert set(told) == set(names)


def test_the_page_has_nothing_to_show_without_results(tmp_path, monkeypatch):
    shown, facts = run("11_beyond", tmp_path, monkeypatch)
    assert [len(table) for table in shown] == [0]
    assert facts == {}


def test_every_fact_of_the_page_is_there():
    cells = json.loads((NOTEBOOKS / "11_beyond.ipynb").read_text("utf-8"))["cells"]
    text = "".join(
        line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"]
    )
    told = wishes.facts(wishes.sections()) | ablation.facts(ablation.recorded())
    named = re.findall(r"{glue:text}`(\w+):", text)
    assert len(named) > 40
    assert set(named) <= set(told)
