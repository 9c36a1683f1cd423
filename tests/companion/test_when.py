"""The studies that ask when the penalty helps."""

import dataclasses
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from companion import when, words
from companion.studies import WHEN, networks, specs
from companion.studies.few_images import ARMS, settings
from companion.studies.rivals_tuning import BLOCKS, chosen_strengths
from varreg.lab.ledger import Ledger
from varreg.lab.runs import execute


def test_strengths_are_those_that_breastmnist_chose():
    plain, augmented = (chosen_strengths(block) for block in BLOCKS[:2])
    for name, given in ARMS.items():
        strength = given.get("strength", given.get("variance_weight"))
        if strength is not None:
            chosen = augmented if given.get("augment") else plain
            assert strength == chosen[given["method"]], name


@pytest.mark.parametrize("study", WHEN)
def test_whatever_is_compared_has_the_same_seeds_images_and_labels(study):
    listed = specs(study)
    seeds: dict[object, list[int]] = {}
    for spec in listed:
        seeds.setdefault(dataclasses.replace(spec, seed=0, draw=0), []).append(spec.seed)
    assert len({tuple(each) for each in seeds.values()}) == 1
    # One draw a seed, the same for every method; none where there is nothing to draw.
    by_level: dict[object, set[object]] = {}
    for spec in listed:
        level = (spec.dataset, spec.model, spec.train_share, spec.wrong_labels, spec.wrong_kind)
        by_level.setdefault((*level, spec.seed), set()).add(spec.draw)
    assert all(len(draws) == 1 for draws in by_level.values())


def test_fewer_images_are_seen_in_as_many_steps_up_to_a_limit():
    steps = {
        spec.train_share: round(spec.epochs * spec.train_share)
        for spec in specs("few_images")
        if spec.dataset == "pneumoniamnist"
    }
    assert steps == {0.05: 5, 0.1: 10, 0.25: 20, 0.5: 20, 1.0: 20}


@pytest.mark.parametrize("network", networks.NETWORKS)
def test_every_method_trains_and_changes_something_in_every_network(network):
    of_breast = {
        name: settings("try", "breastmnist", name, 0, model=network, epochs=1) for name in ARMS
    }
    scores = {
        name: execute(dataclasses.replace(spec, dataset="phantom", size=16))[0][when.PRIMARY]
        for name, spec in of_breast.items()
    }
    assert np.isfinite(list(scores.values())).all()
    assert len(set(scores.values())) == len(ARMS), scores


# ---------------------------------------------------------------- the page

EFFECTS = {"baseline": 0.0, "feature_l2": -0.05, "tuned": -0.02, "augmented": -0.03}


@pytest.fixture(params=["few_images", "wrong_labels", "networks", "longer"])
def made_up(request, monkeypatch):
    """Runs of a study in which methods gain in proportion to the share of the images."""
    random, rows = np.random.default_rng(0), []
    for spec in specs(request.param):
        effect = EFFECTS.get(spec.method, 0.01) - 0.03 * (spec.augment and spec.strength > 0)
        loss = 0.5 + 0.1 * np.sin(spec.seed) + effect * spec.train_share
        loss += 0.005 * random.standard_normal()
        metrics = {"test_cross_entropy": loss, "test_auroc": 1 - loss, "test_accuracy": 1 - loss}
        rows.append(dataclasses.asdict(spec) | {"key": spec.key} | metrics)
    runs = pd.DataFrame(rows)
    monkeypatch.setattr(when, "Ledger", lambda *_: SimpleNamespace(runs=lambda: runs))
    return request.param, runs


def test_differences_are_paired_and_corrected_level_by_level(made_up):
    study, _ = made_up
    for runs in when.recorded(study).values():
        found = when.differences(runs)
        assert found["level"].nunique() == {"few_images": 5, "longer": 2}.get(study, 7)
        primary = found[found["measure"] == "test_cross_entropy"]
        tried = {"longer": 4, "networks": 5}.get(study, 9)
        assert len(primary) == tried * found["level"].nunique()
        level = primary["level"].iloc[-1]
        mine = runs[runs["level"] == level]
        wide = mine.pivot(index="seed", columns="method", values="test_cross_entropy")
        rows = primary[primary["level"] == level].set_index("method")
        raw = {}
        for name in rows.index:
            against = "augmented" if name.startswith("augmented_") else "none"
            raw[name] = stats.ttest_rel(wide[name], wide[against]).pvalue
            assert rows.loc[name, "mean"] == pytest.approx((wide[name] - wide[against]).mean())
            assert rows.loc[name, "p"] == pytest.approx(raw[name])
        least = min(raw, key=raw.get)
        assert rows.loc[least, "p_holm"] == pytest.approx(tried * raw[least])
        assert rows.loc[least, "text"].endswith("*")


def test_a_data_set_of_which_a_run_is_missing_is_not_shown(made_up, monkeypatch):
    study, runs = made_up
    every = list(when.recorded(study))
    assert every == list(dict.fromkeys(runs["dataset"]))
    missing = SimpleNamespace(runs=lambda: runs.iloc[:-1])
    monkeypatch.setattr(when, "Ledger", lambda *_: missing)
    assert list(when.recorded(study)) == every[:-1]
    monkeypatch.setattr(when, "Ledger", lambda *_: SimpleNamespace(runs=pd.DataFrame))
    assert when.recorded(study) == {}


def test_the_table_has_a_row_a_method_and_a_column_a_level(made_up):
    study, _ = made_up
    runs = next(iter(when.recorded(study).values()))
    found = when.differences(runs)
    shown = when.table(found)
    assert list(shown.columns) == ["Method", *dict.fromkeys(runs["level"])]
    assert shown["Method"].tolist()[:2] == ["Penalty, fixed weight", "Penalty, weight sets itself"]
    first = found[(found["method"] == "fixed") & (found["measure"] == "test_cross_entropy")]
    assert shown.iloc[0].tolist()[1:] == first["text"].tolist()
    means = [
        words.number(mean, signed=True) + "*" * (p < 0.05)
        for mean, p in zip(first["mean"], first["p_holm"], strict=True)
    ]
    assert when.table(found, intervals=False).iloc[0].tolist()[1:] == means
    facts = when.facts(study, {"breastmnist": found})
    assert facts[f"when_{study}_breastmnist_levels"] == found["level"].nunique()
    texts = found[found["method"] == "fixed"].set_index(["level", "measure"])["text"]
    for (level, measure), text in texts.items():
        name = re.sub(r"\W+", "_", level).strip("_") + "_fixed"
        if measure != when.PRIMARY:
            name += measure.removeprefix("test")
        assert facts[f"when_{study}_breastmnist_{name}"] == text.rstrip("*")
    primary = found[(found["measure"] == when.PRIMARY) & (found["method"] == "feature_l2")]
    better = ((primary["p_holm"] < 0.05) & (primary["mean"] < 0)).sum()
    assert facts[f"when_{study}_breastmnist_feature_l2_better"] == better > 0


def test_a_best_epoch_in_the_last_tenth_is_late():
    rows = [
        {"level": "10 %", "method": method, "best_epoch": best, "epochs": 60}
        for method, found in {"none": (54, 55, 30, 1), "fixed": (60, 55, 59, 54)}.items()
        for best in found
    ]
    found = when.late("few_images", {"breastmnist": pd.DataFrame(rows)})
    head = "when_few_images_breastmnist_10"
    assert found == {f"{head}_none_late": "25 %", f"{head}_fixed_late": "75 %"}


def test_where_curves_meet_is_the_first_interval_with_zero():
    rows = {"5 %": (-0.3, -0.1), "10 %": (-0.2, 0.1), "25 %": (-0.1, -0.05)}
    found = pd.DataFrame(
        [
            {"level": level, "method": "fixed", "measure": when.PRIMARY, "low": low, "high": high}
            for level, (low, high) in rows.items()
        ]
    )
    assert when.meeting(found, "fixed") == "10 %"
    assert when.meeting(found[found["level"] != "10 %"], "fixed") == "none"


def test_the_best_strength_is_that_of_the_lowest_mean_and_off_where_none_gains():
    rows = [
        {"level": level, "method": method, name: strength, "val_cross_entropy": loss + level_loss}
        for level, gain in {"5 %": 1, "100 %": -1}.items()
        for level_loss in (0.0, 0.2)
        for method, name, strength, loss in (
            ("baseline", "strength", 0.0, 0.5),
            ("tuned", "variance_weight", 0.1, 0.5 - 0.1 * gain),
            ("tuned", "variance_weight", 2.5, 0.5 - 0.2 * gain),
            ("self_setting", "strength", 0.01, 0.45),
        )
    ]
    shown = when.best_strengths(pd.DataFrame(rows))
    title = "Penalized, best weight above 0"
    assert shown["Images"].tolist() == ["5 %", "100 %"]
    assert shown[title].tolist() == ["2.5", "off"]
    assert shown[f"{title}: gain"].tolist()[0].startswith("\u22120.200")
    assert shown["Penalty, weight sets itself"].tolist() == ["0.01", "0.01"]
    facts = when.best_facts("breastmnist", pd.DataFrame(rows))
    assert facts["when_best_breastmnist_5_tuned"] == "2.5"
    assert facts["when_best_breastmnist_100_tuned"] == "off"
    assert facts["when_best_breastmnist_5_tuned_gain"] == shown[f"{title}: gain"][0]


def test_layers_are_compared_seed_by_seed():
    random, units, features = np.random.default_rng(0), [], []
    arms = {("none", "none"): 0.0, ("fixed", "first"): 0.02, ("fixed", "both"): -0.05}
    for seed in range(10):
        base = 0.5 + 0.1 * np.sin(seed)
        for (weight, which), effect in arms.items():
            key = f"{weight}-{which}-{seed}"
            loss = base + effect + 0.004 * random.standard_normal() * bool(effect)
            metrics = {"cross_entropy": loss, "auroc": 1 - loss, "accuracy": 1 - loss}
            units.append({"key": key, "weight": weight, "layers": which, "seed": seed} | metrics)
            for layer, share in {"first": 0.5, "last": 0.25}.items():
                variance = (1 + seed) * (share if weight == "fixed" else 1)
                features.append({"key": key, "layer": layer, "variance": variance})
    units = pd.DataFrame(units).sample(frac=1, random_state=0)
    found = when.layers(units, pd.DataFrame(features))
    assert found[["weight", "layers"]].to_numpy().tolist() == [
        ["fixed", "both"],
        ["fixed", "first"],
    ]
    wide = units.pivot(index="seed", columns=["weight", "layers"], values="cross_entropy")
    raw = [
        stats.ttest_rel(wide["fixed", which], wide["none", "none"]) for which in ("both", "first")
    ]
    for row, test in zip(found.itertuples(), raw, strict=True):
        assert row.cross_entropy.p == pytest.approx(test.pvalue)
        assert row.auroc.mean == pytest.approx(-row.cross_entropy.mean)
        assert (row.first, row.last) == pytest.approx((0.5, 0.25))
    least = min(test.pvalue for test in raw)
    assert found["p_holm"].min() == pytest.approx(2 * least)
    facts = when.layers_facts(found)
    assert facts["when_layers_fixed_both"] == words.change(found["cross_entropy"][0])
    assert facts["when_layers_fixed_first_auroc"] == words.change(found["auroc"][1])
    assert facts["when_layers_seeds"] == 10
    shown = when.layers_table(found)
    assert shown["Who pays"].tolist() == ["both", "first"]
    assert shown["Variance, last layer"].tolist() == [words.percent(0.25)] * 2
    assert shown.filter(like="cross-entropy").iloc[0, 0].endswith("*")


def test_curves_show_every_share(made_up):
    study, _ = made_up
    if study != "few_images":
        pytest.skip("there is no number of images to draw over")
    figure = when.curves(when.recorded(study))
    assert len(figure.axes) == 2 * 2
    for ax in figure.axes:
        assert len(ax.lines) == len(when.DRAWN)
        assert list(ax.lines[0].get_xdata()) == [0.05, 0.1, 0.25, 0.5, 1.0]
    runs = when.recorded(study)["pneumoniamnist"]
    none = runs[runs["method"] == "none"].groupby("train_share")["test_cross_entropy"].mean()
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx(none.to_numpy())
    plt.close(figure)


def test_differences_are_drawn_level_by_level(made_up):
    study, _ = made_up
    found = when.differences(next(iter(when.recorded(study).values())))
    levels = list(dict.fromkeys(found["level"]))
    found.loc[(found["method"] == "fixed") & (found["level"] == levels[1]), "p_holm"] = 0.2
    figure = when.by_level(found)
    labels = [label.get_text().split() for label in figure.axes[0].get_yticklabels()]
    assert labels == [level.split() for level in levels]  # in lines
    for ax, measure in zip(figure.axes, (when.PRIMARY, "test_auroc"), strict=True):
        marks = [line for line in ax.lines if len(line.get_xdata()) == 1]
        drawn = {
            (float(line.get_xdata()[0]), round(float(line.get_ydata()[0]))): line for line in marks
        }
        rows = found[(found["measure"] == measure) & found["method"].isin(when.BESIDE)]
        assert len(drawn) == len(rows) == rows["method"].nunique() * len(levels)
        for row in rows.itertuples():
            mark = drawn[row.mean, levels.index(row.level)]
            hollow = row.p_holm >= 0.05
            if measure != when.PRIMARY:
                hollow = row.low <= 0 <= row.high
            assert (mark.get_markerfacecolor() == "white") == hollow
    plt.close(figure)


def few_images(dataset):
    """What is recorded on a data set, by method, share and measure."""
    runs = when.recorded("few_images").get(dataset)
    if runs is None:
        pytest.skip(f"few_images is not recorded on {dataset}")
    return when.differences(runs).set_index(["method", "level", "measure"])


def test_what_the_pages_say_of_few_images_follows_from_the_runs():
    chest = few_images("pneumoniamnist")
    loss, area, right = when.PRIMARY, "test_auroc", "test_accuracy"
    few, all_ = chest.index.levels[1][chest.index.codes[1][[0, -1]]]
    for method in ("fixed", "self_setting", "head_weighted", "feature_l2", "augmented"):
        rows = chest.loc[method].xs(loss, level="measure")
        assert (rows["high"] < 0).all(), "the curves do not meet"
        assert (chest.loc[method].xs(area, level="measure")["low"] > 0).all()
    assert ((chest["p_holm"] >= 0.05) | (chest["mean"] < 0))[:, :, loss].all(), "none is worse"
    mean = chest["mean"]
    assert mean["feature_l2", few, loss] < mean["augmented", few, loss]
    assert abs(mean["fixed", few, loss] - mean["augmented", few, loss]) < 0.02, "as much"
    for method in ("fixed", "feature_l2"):
        assert mean["augmented", all_, loss] < chest.loc[(method, all_, loss), "low"]
        assert chest.loc[(method, all_, right), "high"] < 0
    assert chest.loc[("augmented", all_, right), "low"] > 0
    assert mean["self_setting", few, loss] > chest.loc[("fixed", few, loss), "high"]
    assert abs(mean["self_setting", all_, loss] - mean["fixed", all_, loss]) < 0.02
    extra = chest.loc["augmented_feature_l2"].xs(loss, level="measure")
    assert extra.loc[few, "high"] < extra.loc[all_, "low"] < extra.loc[all_, "high"] < 0


def test_what_the_pages_say_of_skin_lesions_follows_from_the_runs():
    skin = few_images("ham10000")
    loss, area, right = when.PRIMARY, "test_auroc", "test_accuracy"
    mean = skin["mean"]
    for level in skin.index.unique("level"):
        assert skin.loc[("fixed", level, loss), "p_holm"] < 0.05
        assert mean["fixed", level, loss] < mean["augmented", level, loss], "it is ahead"
    few, ten, quarter, _, all_ = dict.fromkeys(skin.index.get_level_values("level"))
    assert skin.loc[("fixed", few, area), "low"] > 0
    assert skin.loc[("fixed", quarter, right), "low"] > 0
    assert skin.loc[("fixed", all_, right), "low"] > 0
    for level in (ten, quarter):
        assert mean["self_setting", level, loss] < mean["fixed", level, loss], "as much or more"
    assert mean["self_setting", all_, loss] > skin.loc[("fixed", all_, loss), "high"], "less"


def test_what_the_pages_say_of_wrong_labels_follows_from_the_runs():
    runs = when.recorded("wrong_labels").get("breastmnist")
    if runs is None:
        pytest.skip("wrong_labels is not recorded on BreastMNIST")
    found = when.differences(runs)
    primary = found[found["measure"] == when.PRIMARY].set_index(["method", "level"])
    area = found[found["measure"] == "test_auroc"].set_index(["method", "level"])
    none, *wrong = dict.fromkeys(found["level"])
    for method in ("fixed", "self_setting"):
        mean = primary["mean"][method]
        assert primary.loc[(method, none), "p_holm"] < 0.05
        assert (mean[wrong] > mean[none]).all(), "it shrinks"
        for kind in ("random", "by class"):
            small, _, large = (level for level in wrong if level.endswith(kind))
            assert mean[small] < mean[large]
            ends = primary.loc[(method, large)]
            assert ends["low"] < 0 < ends["high"], "it is gone"
            second = next(lv for lv in wrong if lv.startswith("20") and lv.endswith(kind))
            assert area.loc[(method, second), "low"] > 0, "images stay better ordered"
    last = [level for level in wrong if level.startswith("40")]
    assert area.loc[("fixed", last[1]), "low"] > 0 > area.loc[("fixed", last[0]), "low"]
    assert (primary.loc[(slice(None), last), "p_holm"] >= 0.05).all(), "nothing stands"
    smoothed = primary["mean"]["label_smoothing"]
    assert smoothed[[level for level in wrong if level.startswith("20")]].abs().max() < 0.01


def test_what_the_pages_say_of_networks_follows_from_the_runs():
    runs = when.recorded("networks").get("breastmnist")
    if runs is None:
        pytest.skip("networks is not recorded")
    found = when.differences(runs)
    primary = found[found["measure"] == when.PRIMARY].set_index(["method", "level"])
    half, small, wide, norm, paper, residual, transformer = dict.fromkeys(found["level"])
    stands = primary["p_holm"] < 0.05
    for level in (half, small, wide):
        assert stands["fixed", level]
        assert primary["mean"]["fixed", level] < 0
    mean = primary["mean"]
    assert abs(mean["fixed", norm]) < abs(mean["fixed", small]) / 2, "less is left"
    assert stands["feature_l2", norm], "it does harm"
    assert mean["feature_l2", norm] > 0
    for method in ("fixed", "self_setting", "feature_l2"):
        assert mean[method, paper] > 0, "no strength helps"
    for level in (half, small, wide, norm):
        assert stands["head_weighted", level]
        assert mean["head_weighted", level] < 0
    assert abs(mean["head_weighted", paper]) < 0.01, "it does no harm"
    for level in (residual, transformer):
        assert not stands["fixed", level], "nothing is certain"
        assert not stands["head_weighted", level]


def test_what_the_pages_say_of_longer_training_follows_from_the_runs():
    runs = when.recorded("longer").get("breastmnist")
    if runs is None:
        pytest.skip("longer is not recorded")
    found = when.differences(runs, tuple(when.LONGER.values()))
    few, many = dict.fromkeys(found["level"])
    assert sorted(set(runs["epochs"])) == [60, 240]
    at = found.set_index(["measure", "method", "level"])
    primary, auroc, validation = (at.loc[measure] for measure in when.LONGER.values())
    for method in ("fixed", "self_setting", "feature_l2"):
        assert primary["p_holm"][method, few] < 0.05
        assert primary["p_holm"][method, many] > 0.05, "it no longer stands"
        assert abs(primary["mean"][method, many]) < 0.6 * abs(primary["mean"][method, few])
        assert auroc["low"][method, many] > 0, "the order stays as good"
        assert validation["high"][method, many] < validation["low"][method, few]
    assert primary["p_holm"]["augmented", many] < 0.05
    assert primary["mean"]["augmented", many] < primary["mean"]["fixed", many], "it is ahead"
    wide = runs.pivot(index=["method", "seed"], columns="epochs", values="test_cross_entropy")
    change = (wide[240] - wide[60]).groupby("method").mean()
    assert change["fixed"] > 0.01, "on test images it rises"
    assert change["augmented"] < 0
    told = when.drift({"breastmnist": runs})["when_longer_breastmnist_fixed_drift"]
    assert told.split()[0] == words.number(change["fixed"], signed=True)


def test_what_the_page_says_of_layers_follows_from_the_runs():
    ledger = Ledger("layers")
    if ledger.runs().empty:
        pytest.skip("layers is not recorded")
    found = when.layers(ledger.runs(), ledger.curves()).set_index(["weight", "layers"])
    assert (found["p_holm"] < 0.05).all(), "each stands"
    loss = found["cross_entropy"]
    for weight in ("fixed", "self_setting"):
        last = loss[weight, "last"]
        assert last.mean < min(loss[weight, "first"].mean, loss[weight, "both"].mean)
        assert last.high < loss[weight, "first"].mean
        area = found["auroc"][weight, "first"]
        assert area.low < 0 < area.high < found["auroc"][weight, "last"].high
        # The first layer pays, and the last one, which does not, varies less as well.
        assert found["last"][weight, "first"] < 0.5


def test_what_the_page_says_of_the_best_weight_follows_from_the_runs():
    runs = when.recorded("few_images_weights").get("pneumoniamnist")
    if runs is None:
        pytest.skip("few_images_weights is not recorded on PneumoniaMNIST")
    facts = when.best_facts("pneumoniamnist", runs)
    best = {
        method: [
            facts[f"when_best_pneumoniamnist_{share}_{method}"] for share in (5, 10, 25, 50, 100)
        ]
        for method in ("tuned", "self_setting")
    }
    assert best["tuned"][-1] == "off"
    fixed, shares = ([float(text) for text in best[name] if text != "off"] for name in best)
    assert fixed == sorted(fixed, reverse=True)
    assert fixed[0] > fixed[1]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[1] == shares[3] > shares[4]
    # What BreastMNIST chose: the share is that of the fewest images, the weight is above all.
    assert shares[0] == ARMS["self_setting"]["strength"]
    assert fixed[0] < ARMS["fixed"]["variance_weight"]
    assert all(
        len(each) == 3
        for _, each in runs.groupby(["level", "method", "variance_weight", "strength"])
    )
