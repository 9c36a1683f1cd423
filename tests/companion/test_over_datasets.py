"""The comparison as it looks when all of its blocks are recorded: nothing has to be changed."""

from __future__ import annotations

import dataclasses
import math
import re
import zlib

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion import over_datasets, rivals
from companion.studies import one_default, rivals_tuning, volumes
from companion.studies import rivals as study
from companion.studies.rivals_tuning import CANDIDATES
from varreg.lab.ledger import Ledger
from varreg.lab.methods import METHODS
from varreg.lab.predictions import Predictions
from varreg.lab.statistics import holm
from varreg.loss import PUBLISHED

#: What is added to the cross-entropy; of every other method nothing.
EFFECTS = {"feature_l2": -0.1, "tuned": -0.05, "self_setting": -0.05, "augmented": -0.02}
LEVELS = {"breastmnist": 0.4, "pneumoniamnist": 0.5, "ham10000": 0.7, "phantom": 2.0}
IMAGES = 14
DATASETS = [*dict.fromkeys(block.dataset for block in one_default.BLOCKS)]
#: All blocks, with some of their methods: main ones, and others.
MAIN = ("tuned", "self_setting", "feature_l2", "dropout", "weight_decay")
REST = ("excess", "view_variance")
BLOCKS = tuple(
    dataclasses.replace(block, methods=tuple(m for m in block.methods if m in (*MAIN, *REST)))
    for block in rivals_tuning.BLOCKS
)


def noise(*names: object, size: int | tuple[int, ...] = 1) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(repr(names).encode())).normal(size=size)


def outputs(dataset: str) -> int:
    return 7 if dataset == "ham10000" else 1


def run(spec) -> dict[str, object]:
    off = spec.method in ("baseline", "augmented", "two_views") and spec.augment
    loss = LEVELS.get(spec.dataset, 1.0) - 0.1 * spec.augment + 0.1 * noise(spec.seed)[0]
    loss += (0 if off else EFFECTS.get(spec.method, 0)) + 0.004 * noise(spec.key)[0]
    names = ("cross_entropy", "accuracy", "balanced_accuracy", "ece")
    values = {f"test_{name}": loss for name in names} | {"test_auroc": 3 - loss}
    values |= {f"corrupted_{name}": loss for name in ("cross_entropy", "auroc", "accuracy")}
    recall = ";".join(["0.5"] * max(2, outputs(spec.dataset)))
    more = {"train_accuracy": 0.9, "train_cross_entropy": 0.1, "test_recall": recall}
    return {"key": spec.key, **dataclasses.asdict(spec), **values, **more}


class FakeLedger:
    def __init__(self, specs):
        self.specs = {spec.key: spec for spec in specs}

    def runs(self) -> pd.DataFrame:
        return pd.DataFrame([run(spec) for spec in self.specs.values()])

    def all_predictions(self, keys, splits):
        names = [str(place) for place in range(IMAGES)]
        return {
            key: {
                split: Predictions(
                    noise(key, split, size=(IMAGES, outputs(self.specs[key].dataset))), names
                )
                for split in splits
            }
            for key in keys
        }


def truth(dataset, split, part, results):
    return np.arange(IMAGES) % max(2, outputs(dataset))


def tuning_row(spec) -> dict[str, object]:
    strength = max(spec.strength, spec.variance_weight)
    places = CANDIDATES.get(spec.method, ())
    best = abs(places.index(strength) - 2) if strength else 3
    score = 1.0 if spec.method == "weight_decay" else 0.4 + 0.01 * best  # decay is off everywhere
    return {"key": spec.key, **dataclasses.asdict(spec), "val_cross_entropy": score}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the strengths of all blocks are chosen: the third of each, and no weight decay."""
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rivals_tuning, "SEEDS", range(1000, 1001))
        patch.setattr(rivals_tuning, "BLOCKS", BLOCKS)
        specs = rivals_tuning.specs()
        path = Ledger("rivals_tuning", results).runs_path
        path.parent.mkdir()
        pd.DataFrame(map(tuning_row, specs)).to_csv(path, index=False)
        patch.setattr(study, "SEEDS", range(4))
        patch.setattr(rivals, "labels", truth)
        yield results, patch


@pytest.fixture(scope="module")
def every_block(folder):
    results, patch = folder
    patch.setattr(rivals, "BLOCKS", BLOCKS)
    specs = [spec for block in BLOCKS for spec in study.block_specs(block, results)]
    patch.setattr(rivals, "Ledger", lambda *_: FakeLedger(specs))
    return rivals.recorded_blocks(results)


def of(blocks, dataset: str, augment=False, model="small_cnn"):
    wanted = (dataset, model, augment)
    (found,) = (b for b in blocks if (b.block.dataset, b.block.model, b.block.augment) == wanted)
    return found


def test_blocks_that_differ_in_their_methods_alone_are_one(every_block):
    assert len(every_block) == 13 == len({each.name for each in every_block})
    skin = of(every_block, "ham10000")
    assert set(skin.strengths) == {*MAIN, *REST}
    assert not skin.runs.duplicated(["method", "seed"]).any()
    tested = skin.of(rivals.PRIMARY)
    assert set(tested.index) == {*MAIN, *REST, "penalized", "augmented", "two_views"}
    raw = tested["p"].dropna()
    assert tested.loc[raw.index, "p_holm"].tolist() == pytest.approx(holm(raw))
    assert tested.loc["weight_decay", "text"] == "off"


def test_every_block_is_on_every_part_of_the_page(every_block):
    for each in every_block:
        methods = set(each.block.methods)
        if not each.block.augment:
            methods |= {"penalized"} | ({"two_views"} if "view_variance" in methods else set())
            methods |= {"augmented"} & set(each.runs["method"])
        assert set(each.of(rivals.PRIMARY).index) == methods
        assert len(rivals.table(each, list(rivals.MEASURES))) == len(methods)
        trained = len(methods) - 1  # weight decay is off
        assert len(rivals.other_images(each)) == len(rivals.recall_table(each)) == trained
        assert ("scaled_auroc" in each.runs) == (each.block.dataset == "ham10000")
        assert len(rivals.contrasts(each)) >= 3
    with_both = [each for each in every_block if "augmented" in set(each.runs["method"])]
    assert len(with_both) == 8  # four data sets
    assert len(over_datasets.blocks_table(every_block)) == len(rivals.variation(every_block)) == 13
    assert len(over_datasets.main_table(every_block)) == 13
    told = rivals.facts(every_block)
    heads = {re.match(r"(.*)_methods$", name)[1] for name in told if name.endswith("_methods")}
    assert len(heads) == 13


def test_what_the_text_says_of_two_methods_stands_in_their_table(every_block):
    mine = of(every_block, "breastmnist", model="small_cnn_norm")
    told = rivals.contrast_facts([mine])
    assert all(name.startswith("variants_breastmnist_norm_") for name in told)
    wide = mine.runs.pivot(index="seed", columns="method", values=rivals.PRIMARY)
    found = stats.ttest_rel(wide["tuned"], wide["feature_l2"]).confidence_interval()
    said = rivals.words.change(rivals.mean_change(wide["tuned"] - wide["feature_l2"]))
    assert told["variants_breastmnist_norm_tuned_over_feature_l2"] == said
    assert f"{abs(found.low):.3f}" in said
    shown = rivals.contrasts(mine)
    column = rivals.words.capital(rivals.MEASURES[rivals.PRIMARY][0])
    plain = [value for name, value in told.items() if not name.endswith("_scaled")]
    assert plain == shown[column].tolist()


def test_recalls_are_paired_differences_class_by_class(every_block):
    shown = rivals.recall_table(of(every_block, "ham10000"))
    assert shown.shape[1] == 1 + 7
    assert set(shown.iloc[0, 1:]) == {"+0.000 [+0.000, +0.000]"}


def test_differences_over_images_have_the_mean_of_those_over_seeds(every_block):
    mine = of(every_block, "pneumoniamnist")
    found = mine.over_images.set_index(["method", "measure"])
    for measure in (rivals.PRIMARY, "test_auroc"):
        first = mine.of(measure).loc["feature_l2"]
        row = found.loc["feature_l2", measure]
        assert row["mean"] == pytest.approx(first["mean"])
        assert row["low"] < row["mean"] < row["high"]
    primary = found.xs(rivals.PRIMARY, level="measure")
    assert primary["p_holm"].tolist() == pytest.approx(holm(primary["p"]))
    assert found.xs("test_auroc", level="measure")["p_holm"].isna().all()


# ---------------------------------------------------------------- over data sets


def test_means_are_over_the_seeds_and_what_is_off_is_its_reference(every_block):
    for augment, own in ((False, "baseline"), (True, "augmented")):
        mine = [b for b in every_block if b.block.augment == augment]
        mine = [b for b in mine if b.block.model == "small_cnn"]
        table = over_datasets.means(mine)
        assert set(table.columns) >= {own, *MAIN}
        assert table["weight_decay"].tolist() == table[own].tolist()
        for each in mine:
            runs = each.runs[each.runs["method"] == "tuned"]
            expected = runs[rivals.PRIMARY].mean()
            assert table.loc[each.block.dataset, "tuned"] == pytest.approx(expected)
    assert "view_variance" not in over_datasets.means([of(every_block, "ham10000")] * 2)


def three(every_block):
    return [of(every_block, name) for name in ("breastmnist", "pneumoniamnist", "phantom")]


def test_ranks_over_three_data_sets_are_those_by_hand(every_block):
    mine = three(every_block)
    table = over_datasets.means(mine)
    methods, n = table.shape[1], 3
    by_hand = np.mean([stats.rankdata(row) for row in table.to_numpy()], axis=0)
    shown = over_datasets.ranks_table(mine).set_index("Method")["Small network, 3 data sets"]
    assert float(shown["Feature L2"]) < float(shown["Baseline"])
    for method, rank in zip(table.columns, by_hand, strict=True):
        assert shown[rivals.title(method)] == f"{rank:.1f}"
    p = stats.friedmanchisquare(*table.to_numpy().T).pvalue
    assert shown["p, all alike"] == (f"{p:.3f}" if p >= 0.001 else "below 0.001")
    q = stats.studentized_range.ppf(0.95, methods, np.inf) / math.sqrt(2)
    reach = q * math.sqrt(methods * (methods + 1) / (6 * n))
    assert shown["Critical difference"] == f"{reach:.1f}"


def test_every_setting_has_its_ranks(every_block):
    shown = over_datasets.ranks_table(every_block)
    assert list(shown.columns) == [
        "Method",
        "Small network, 4 data sets",
        "Small network, augmented, 4 data sets",
        "Small network, batch normalization, 2 data sets",
        "Small network, three times as wide, 2 data sets",
    ]
    assert shown["Method"].tolist()[-2:] == ["Critical difference", "p, all alike"]


def test_nothing_is_shown_over_a_single_data_set(every_block):
    mine = [of(every_block, "breastmnist"), of(every_block, "breastmnist", True)]
    assert over_datasets.ranks_table(mine).empty
    assert over_datasets.figure(mine) is None
    assert over_datasets.counts_table(over_datasets.outcomes(mine)).empty
    assert over_datasets.counts_table(over_datasets.outcomes([])).empty
    assert over_datasets.variation([]).empty
    assert over_datasets.blocks_table([]).empty
    assert over_datasets.main_table([]).empty
    assert over_datasets.facts([], [])["over_datasets"] == 0


def test_the_figure_shows_each_data_set_and_the_ranks(every_block):
    figure = over_datasets.figure(every_block)
    figure.canvas.draw()
    titles = [ax.get_title("left") or ax.get_title() for ax in figure.axes]
    assert titles == [
        "BreastMNIST",
        "PneumoniaMNIST",
        "HAM10000",
        "phantom",
        "All",
        *[""] * 5,  # AUROC below
    ]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:2] == ["Augmented", "Feature L2"]
    others = {"Baseline", "Penalized, as published", "Augmented", rivals.title("excess")}
    assert sorted(labels) == sorted({*map(rivals.title, MAIN)} | others)
    above, below = (figure.axes[place].get_xlabel() for place in (4, 9))
    assert above == below == "mean rank"
    few = over_datasets.figure(every_block, methods=("baseline", "tuned", "feature_l2")).axes[0]
    labels = [label.get_text() for label in few.get_yticklabels()]
    assert labels == ["Feature L2", "Penalty, fixed weight", "Baseline"]


def test_the_higher_auroc_has_the_better_rank_and_what_is_off_is_crossed_in_both(every_block):
    mine = [
        each
        for each in every_block
        if (each.block.model, each.block.augment) == ("small_cnn", False)
    ]
    lines = over_datasets.figure(mine).axes
    for measure, ranks, first in (("test_auroc", lines[9], 5), (rivals.PRIMARY, lines[4], 0)):
        order = [label.get_text() for label in lines[0].get_yticklabels()]
        table = over_datasets.means(mine, measure).rename(columns=rivals.title)[order]
        best = table.rank(axis=1, ascending=measure == rivals.PRIMARY).mean()
        dots = ranks.lines[0].get_xdata()
        assert list(dots) == pytest.approx(best.tolist())
        for ax, each in zip(lines[first:], mine, strict=False):
            crosses = [line.get_ydata()[0] for line in ax.lines if line.get_marker() == "x"]
            off = [rivals.title(name) for name, strength in each.strengths.items() if not strength]
            assert off
            assert sorted(order[place] for place in crosses) == sorted(off)


# ---------------------------------------------------------------- one default


@pytest.fixture
def defaults(monkeypatch):
    """Of one default, where the fixed weight does harm on two data sets without augmentation."""
    made_up = FakeLedger(one_default.specs())
    monkeypatch.setattr(over_datasets, "Ledger", lambda study, results: made_up)
    found = []
    for each in over_datasets.recorded_defaults():
        runs = each.runs.copy()
        if each.block.dataset in ("pneumoniamnist", "phantom") and not each.block.augment:
            harmed = runs["method"] == "tuned"
            runs.loc[harmed, "test_cross_entropy"] += 1
            runs.loc[harmed, "test_auroc"] -= 1
        found.append(dataclasses.replace(each, runs=runs))
    return found


def test_a_default_is_counted_over_the_data_sets(every_block, defaults):
    found = over_datasets.outcomes(every_block, defaults)
    every = over_datasets.counts(found).set_index(["one", "method"])
    chosen = every.loc[False]
    assert chosen.loc["feature_l2", ["beats", "of", "adds", "of_augmented"]].tolist() == [
        4,
        4,
        4,
        4,
    ]
    assert chosen.loc["feature_l2", "reaches"]
    assert chosen.loc["weight_decay", ["beats", "adds"]].tolist() == [0, 0]
    assert chosen.loc["weight_decay", "strengths"] == [0]
    one = every.loc[True]
    assert one.loc["feature_l2", ["beats", "of", "adds", "of_augmented"]].tolist() == [4, 4, 4, 4]
    assert one.loc["tuned", ["beats", "of", "adds", "of_augmented"]].tolist() == [2, 4, 4, 4]
    assert one.loc["within_class", ["beats", "adds"]].tolist() == [0, 0]
    assert one.loc["augmented", ["beats", "of", "of_augmented"]].tolist() == [4, 4, 0]
    assert one["reaches"].to_dict() == {
        "feature_l2": True,
        "self_setting": True,
        "augmented": False,  # nothing to add to
        "tuned": False,
        "within_class": False,
    }
    told = over_datasets.facts(every_block, defaults)
    assert told["over_datasets"] == 4
    assert told["over_tuned_one_beats"] == "2 of 4"
    assert told["over_feature_l2_chosen_adds"] == "4 of 4"
    assert told["over_weight"] == f"{one_default.STRENGTHS['tuned']:g}"
    assert told["over_reaches"] == "penalty, weight sets itself and feature L2"
    shown = over_datasets.counts_table(found).set_index("Method")
    assert shown.loc["Feature L2", "Beats none, chosen on each"] == "4 of 4"
    assert shown.loc["Penalty, fixed weight", "Beats none, one strength for all"] == "2 of 4"
    assert shown.loc["Weight decay", "Strengths chosen"] == "off"


def test_differences_at_one_strength_are_those_of_the_runs_with_holm_in_each_measure(defaults):
    for measure in (rivals.PRIMARY, "test_auroc"):
        shown = over_datasets.defaults_table(defaults, measure).set_index("Method")
        assert list(shown) == ["BreastMNIST", "PneumoniaMNIST", "HAM10000", "phantom"]
        assert len(shown) == 2 * 4 + 1
        for each in defaults:
            top = " + augmentation" * each.block.augment
            wide = each.runs.pivot(index="seed", columns="method", values=measure)
            own = "augmented" if each.block.augment else "baseline"
            names = [name for name in wide if name not in ("baseline", own)]
            p = {name: stats.ttest_rel(wide[name], wide[own]).pvalue for name in names}
            for name, corrected in zip(names, holm(list(p.values())), strict=True):
                cell = shown.loc[
                    rivals.title(name) + top, list(shown)[DATASETS.index(each.block.dataset)]
                ]
                assert cell.endswith("*") == (corrected < 0.05)
                assert cell.startswith(
                    f"{(wide[name] - wide[own]).mean():+.3f}".replace("-", "\u2212")
                )


def test_one_default_waits_for_all_runs_of_a_block(monkeypatch):
    some = FakeLedger(one_default.specs()[:-1])
    monkeypatch.setattr(over_datasets, "Ledger", lambda study, results: some)
    assert len(over_datasets.recorded_defaults()) == len(one_default.BLOCKS) - 1
    monkeypatch.setattr(over_datasets, "Ledger", lambda study, results: FakeLedger([]))
    assert over_datasets.recorded_defaults() == []
    assert over_datasets.defaults_table([]).empty


def test_volumes_are_a_block_at_the_strengths_of_other_data_sets(monkeypatch):
    specs = volumes.specs()
    monkeypatch.setattr(rivals, "labels", truth)
    monkeypatch.setattr(over_datasets, "Ledger", lambda study, results: FakeLedger(specs))
    (mine,) = over_datasets.recorded_volumes()
    assert mine.name == "AdrenalMNIST3D, volumes, 25 % of them, half as wide"
    assert len(mine.runs) == len(specs)
    assert {spec.draw for spec in specs} == {spec.seed for spec in specs}
    found = mine.of(rivals.PRIMARY)
    assert set(found.index) == {"penalized", *rivals_tuning.MAIN}
    held = over_datasets.holds(mine)
    assert held["feature_l2"]
    assert held["tuned"]
    assert not held["dropout"]
    for method in rivals_tuning.MAIN:
        used = {spec.strength or spec.variance_weight for spec in specs if spec.method == method}
        assert used == {METHODS[method].default} == {found.loc[method, "strength"]}
    for spec in specs:
        if spec.method == "penalized":
            assert {name: getattr(spec, name) for name in PUBLISHED} == PUBLISHED
    scaled = rivals.table(mine, ["test_cross_entropy", "scaled_cross_entropy", "last_auroc"])
    assert list(scaled)[2:4] == ["Cross-entropy", "Cross-entropy after temperature"]
    assert "AUROC, last epoch" not in scaled  # the weights of the last epoch are not recorded
    told = over_datasets.facts([], [], [mine])
    assert told["volumes_methods"] == len(found)
    assert told["volumes_lower"] == sum((found["p_holm"] < 0.05) & (found["mean"] < 0))
    assert told["volumes_tuned_test_cross_entropy"] == found.loc["tuned", "text"].rstrip("*")
    titles = [rivals.named(name) for name, does in held.items() if does]
    assert told["volumes_hold"] == ", ".join(titles[:-1]) + " and " + titles[-1]
    monkeypatch.setattr(over_datasets, "Ledger", lambda study, results: FakeLedger(specs[1:]))
    assert over_datasets.recorded_volumes() == []


@pytest.mark.parametrize(("worse", "counted"), [("test_auroc", 0), (None, 1)])
def test_a_default_must_gain_in_both_measures(every_block, worse, counted):
    mine = of(every_block, "phantom")
    runs = mine.runs.copy()
    if worse:
        runs[worse] = 0.5 + 0.01 * noise("other", size=len(runs))
    found = over_datasets.outcomes([dataclasses.replace(mine, runs=runs)])
    (row,) = over_datasets.counts(found).query("method == 'feature_l2'").to_dict("records")
    assert row["beats"] == counted


def test_holms_correction_is_over_all_methods_before_any_is_left_out(every_block):
    mine = of(every_block, "ham10000")
    area = mine.of("test_auroc")
    stands = {m for m, p in zip(area.index, holm(area["p"]), strict=True) if p < 0.05}
    found = over_datasets.outcomes([mine]).set_index("method")
    assert set(found.index[found["raises"]]) == stands & set(area.index[area["mean"] > 0])


# ---------------------------------------------------------------- what explains the differences


def test_shares_of_the_variation_over_data_sets(every_block):
    shown = over_datasets.variation(every_block).set_index("Factor")["Share of the variation"]
    shares = {name: float(text.removesuffix(" %").replace(",", "")) for name, text in shown.items()}
    assert sum(shares.values()) == pytest.approx(100, abs=0.6)
    # By hand: values of four data sets, with and without augmentation.
    rows = []
    for dataset in ("breastmnist", "pneumoniamnist", "ham10000", "phantom"):
        for augment in (False, True):
            mine = of(every_block, dataset, augment)
            own = "augmented" if augment else "baseline"
            wide = mine.runs.pivot(index="seed", columns="method", values=rivals.PRIMARY)
            wide = wide.rename(columns={own: "none"}).assign(weight_decay=wide[own])
            for method in ("none", *MAIN):
                rows += [(dataset, augment, seed, method, v) for seed, v in wide[method].items()]
    table = pd.DataFrame(rows, columns=["data set", "augmentation", "seed", "method", "value"])
    total = table["value"].var(ddof=0)
    for name in ("data set", "augmentation", "seed", "method"):
        share = table.groupby(name)["value"].mean().var(ddof=0) / total
        assert shares[name.capitalize()] == pytest.approx(100 * share, abs=0.06)
    one = over_datasets.variation([of(every_block, "breastmnist", a) for a in (False, True)])
    assert "Data set" not in one["Factor"].tolist()
    assert {"Augmentation", "Seed", "Method", "Augmentation with method"} <= set(one["Factor"])
