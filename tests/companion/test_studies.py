from __future__ import annotations

import dataclasses
import itertools
import math

import pandas as pd
import pytest

from companion.studies import (
    REPRODUCTION,
    STUDIES,
    ambiguities,
    chest,
    chest_paper,
    few_images,
    grid,
    inert_lambda,
    one_default,
    rivals,
    rivals_tuning,
    skin,
    specs,
)
from varreg.lab.columns import PROVENANCE_COLUMNS
from varreg.lab.ledger import Ledger
from varreg.lab.methods import METHODS
from varreg.lab.runs import MissingRunsError
from varreg.lab.specs import RunSpec
from varreg.loss import PUBLISHED, VariancePenalizedLoss

SMALL = ("small_cnn", False)
# The weights with the lowest validation cross-entropy in the ledger that `recorded_grid` makes up.
BEST = {
    ("pneumoniamnist", "paper_cnn"): 100.0,
    ("pneumoniamnist", "small_cnn"): 10.0,
    ("ham10000", "paper_cnn"): 0.1,
    ("ham10000", "small_cnn"): 1.0,
}


def made_up_grid() -> pd.DataFrame:
    rows = []
    for spec in specs("grid"):
        best = math.log10(BEST[spec.dataset, spec.model])
        off = abs(math.log10(spec.variance_weight) - best) if spec.variance_weight else 0
        # The baseline is best of all, and the paper's twelve too: neither may be chosen.
        wide = (spec.feature_sampling_ratio, spec.lambda_) == (1.0, 1.0)
        score = 0.5 + off + (spec.seed - 100) / 100 if wide and spec.variance_weight else 0.1
        # The other way round on the test images: nothing may look at them.
        rows.append((spec.key, spec.variance_weight, score, 9 - off))
    columns = ["key", "variance_weight", "val_cross_entropy", "test_cross_entropy"]
    return pd.DataFrame(rows, columns=columns).assign(seconds=3600.0, device="a machine")


@pytest.fixture
def recorded_grid(tmp_path, monkeypatch):
    monkeypatch.setenv("VARREG_RESULTS", str(tmp_path))
    path = Ledger("grid").runs_path
    path.parent.mkdir()
    made_up_grid().to_csv(path, index=False)
    return path


# ---------------------------------------------------------------- what is run


@pytest.mark.parametrize(
    ("study", "count"),
    [
        ("chest_paper", 10 * 3),
        ("chest", 4 * 2 * 20),
        ("skin_paper", 2 * 10),
        ("skin", 3 * 2 * 2 * 20),
        ("grid", 8 * 2 * 2 * 5 + 12 * 2 * 5),
        ("edges", 2 * 2 * 10),
        ("inert_lambda", 5 * 3 * 3),
        ("ambiguities", (2 * (10 + 10) - 2 + 2 * (8 + 8) - 2) * 5),
        ("few_images", 2 * 10 * 5 * 10),
        ("few_images_weights", 2 * 3 * 5 * (1 + 2 * 6)),
        ("wrong_labels", 2 * 10 * (1 + 2 * 3) * 10),
        ("networks", 10 * 7 * 6),
        ("longer", 10 * 2 * 5),
        ("beyond", 10 * 4 + 10 * 5),
        ("one_default", 4 * 2 * 10 * 5),
        ("volumes", 20 * 13),
    ],
)
def test_number_of_runs(study, count):
    listed = specs(study)
    assert len(listed) == count
    assert len({spec.key for spec in listed}) == count
    assert {spec.study for spec in listed} == {study}


@pytest.mark.parametrize("study", REPRODUCTION)
def test_every_setting_has_the_same_seeds_and_comes_seed_by_seed(study):
    listed = specs(study)
    settings: dict[RunSpec, list[int]] = {}
    for spec in listed:
        settings.setdefault(dataclasses.replace(spec, seed=0), []).append(spec.seed)
    seeds = {tuple(seeds) for seeds in settings.values()}
    assert len(seeds) == 1
    (seeds,) = seeds
    first = 100 if study == "grid" else 0
    assert seeds == tuple(range(first, first + len(seeds)))
    assert len(seeds) >= {"grid": 5, "chest": 20, "skin": 20, "skin_paper": 10}.get(study, 3)
    if study != "grid":
        assert [spec.seed for spec in listed] == sorted(spec.seed for spec in listed)


def test_the_protocol_of_the_released_notebooks():
    for spec in specs("chest_paper") + specs("skin_paper"):
        assert spec.model == "paper_cnn"
        assert (spec.size, spec.batch_size, spec.optimizer) == (224, 32, "adam")
        assert (spec.learning_rate, spec.adam_epsilon, spec.weight_decay) == (1e-4, 1e-7, 0)
        assert (spec.monitor, spec.normalize, spec.init) == ("total", "unit", "glorot")
        penalty = (spec.variance_weight, spec.feature_sampling_ratio, spec.lambda_)
        assert penalty == ((0.01, 0.2, 0.5) if spec.method == "penalized" else (0, 1, 1))
    epochs = {spec.method: spec.epochs for spec in specs("chest_paper")}
    assert epochs == {"baseline": 25, "penalized": 30, "augmented": 30}
    assert {(spec.dataset, spec.patience) for spec in specs("chest_paper")} == {("chest_xray", 5)}
    assert {
        (spec.dataset, spec.split, spec.epochs, spec.patience, spec.method)
        for spec in specs("skin_paper")
    } == {("ham10000", "paper", 10, 2, method) for method in ("baseline", "penalized")}


def test_the_papers_twelve_combinations():
    for dataset in grid.DATASETS:
        twelve = {
            (spec.variance_weight, spec.feature_sampling_ratio, spec.lambda_)
            for spec in specs("grid", dataset=dataset, model="paper_cnn")
            if spec.feature_sampling_ratio != 1.0
        }
        assert twelve == {(w, r, k) for w in (0.01, 0.1) for r in (0.2, 0.5) for k in (0.5, 1, 2)}


def test_the_wide_grid():
    for dataset, model in grid.CHOSEN:
        wide = specs("grid", dataset=dataset, model=model, feature_sampling_ratio=1.0, lambda_=1.0)
        assert {spec.variance_weight for spec in wide} == {0, *(10.0**k for k in range(-2, 5))}
        assert {spec.method for spec in wide if not spec.variance_weight} == {"baseline"}


@pytest.mark.parametrize("study", ["chest", "skin"])
def test_the_sound_studies_use_the_chosen_weight_and_the_grids_protocol(study):
    (dataset,) = {spec.dataset for spec in specs(study)}
    for model in grid.MODELS:
        (weight,) = {spec.variance_weight for spec in specs(study, model=model, method="tuned")}
        assert weight == grid.CHOSEN[dataset, model]
        published = specs(study, model=model, method="penalized")[0]
        assert {name: getattr(published, name) for name in PUBLISHED} == PUBLISHED
        chosen, tried = (
            specs(where, model=model, seed=seed, variance_weight=weight, feature_sampling_ratio=1.0)
            for where, seed in ((study, 0), ("grid", 100))
        )
        chosen = [spec for spec in chosen if spec.split in (None, "lesion")]
        tried = [spec for spec in tried if spec.dataset == dataset]
        same = {"study": "", "method": "tuned", "seed": 0}
        assert dataclasses.replace(chosen[0], **same) == dataclasses.replace(tried[0], **same)
    if study == "skin":
        assert {spec.split for spec in specs(study)} == {"paper", "lesion"}


def test_the_inert_lambda_holds_the_ratio():
    for name, settings in inert_lambda.FAMILIES.items():
        family = specs("inert_lambda", seed=0, **settings)
        if name == "Adam":
            family = [s for s in family if s.weight_decay == 0 and s.adam_epsilon == 1e-8]
        family = [s for s in family if s.optimizer == settings.get("optimizer", "adam")]
        assert {s.variance_weight / s.lambda_ for s in family} == {inert_lambda.RATIO}
        assert {s.lambda_ for s in family} == set(inert_lambda.LAMBDAS)


def test_every_alternative_changes_what_it_says_and_nothing_else():
    listed = {spec.key: spec for spec in specs("ambiguities")}
    released = {
        "chest": ("chest_xray", None, 5, {"baseline": 25, "penalized": 30}),
        "skin": ("ham10000", "paper", 2, {"baseline": 10, "penalized": 10}),
    }
    for alternative, (name, rate) in itertools.product(
        ambiguities.ALTERNATIVES, ambiguities.LEARNING_RATES.items()
    ):
        runs = [listed[key] for key in ambiguities.keys(alternative, name)]
        if name == "paper" and alternative.topic == "learning rate":
            assert not runs
            continue
        assert {(run.method, run.seed) for run in runs} == {
            (method, seed) for method in ("baseline", "penalized") for seed in range(5)
        }
        dataset, split, patience, epochs = released[alternative.experiment]
        for run in runs:
            expected = {"dataset": dataset, "split": split, "patience": patience}
            expected |= {"epochs": epochs[run.method], "equalize": False}
            expected |= chest_paper.KERAS | {"size": 28, "learning_rate": rate}
            changed = {key for key, value in expected.items() if getattr(run, key) != value}
            # 25 epochs are what the released baseline has already.
            assert changed <= set(alternative.settings)
            assert changed or not set(alternative.settings) - {"epochs"}
    topics = {"learning rate", "epochs", "early stopping", "preprocessing", "depth", "split"}
    assert {alternative.topic for alternative in ambiguities.ALTERNATIVES} >= topics


# ---------------------------------------------------------------- the choice of the weight


@pytest.mark.parametrize(("dataset", "model"), BEST)
def test_chosen_is_the_best_positive_weight_on_validation(recorded_grid, dataset, model):
    for results in (None, str(recorded_grid.parents[1])):
        assert grid.best_weight_above_zero(dataset, model, results) == BEST[dataset, model]


def test_scores_are_means_over_seeds(recorded_grid):
    scores = grid.mean_scores("ham10000", "small_cnn")
    assert scores.index.tolist() == [0.0, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0]
    assert scores.tolist() == pytest.approx([0.1, 2.52, 1.52, 0.52, 1.52, 2.52, 3.52, 4.52])


def test_one_lucky_seed_does_not_choose(recorded_grid):
    table = made_up_grid()
    lucky = [spec.key for spec in specs("grid", dataset="ham10000", model="small_cnn", seed=102)]
    hit = table["key"].isin(lucky) & (table["variance_weight"] == 1000)
    assert hit.sum() == 1
    table.loc[hit, "val_cross_entropy"] = 0.2
    table.to_csv(recorded_grid, index=False)
    assert grid.best_weight_above_zero("ham10000", "small_cnn") == 1.0


def test_the_weights_written_down_are_those_that_the_record_chooses():
    assert {*grid.CHOSEN} == set(itertools.product(grid.DATASETS, grid.MODELS))
    for (dataset, model), weight in grid.CHOSEN.items():
        assert grid.best_weight_above_zero(dataset, model) == weight


@pytest.mark.parametrize("study", sorted({*STUDIES} - {"rivals"}))
def test_what_is_run_is_listed_without_any_results(tmp_path, monkeypatch, study):
    listed = specs(study)
    monkeypatch.setenv("VARREG_RESULTS", str(tmp_path))
    assert specs(study) == listed


def test_needs_all_of_the_grid(recorded_grid):
    table = pd.read_csv(recorded_grid)
    gone = specs("grid", dataset="pneumoniamnist", model="small_cnn", seed=104)[3].key
    table[table["key"] != gone].to_csv(recorded_grid, index=False)
    assert grid.best_weight_above_zero("pneumoniamnist", "paper_cnn") == 100.0
    with pytest.raises(MissingRunsError, match=r"1 of 40 runs .* small_cnn on pneumoniamnist"):
        grid.best_weight_above_zero("pneumoniamnist", "small_cnn")


def test_weights_are_chosen_on_seeds_that_the_paired_studies_do_not_use():
    assert not {*grid.SEEDS} & {*chest.SEEDS, *skin.SEEDS}
    assert not {*rivals_tuning.SEEDS} & {*rivals.SEEDS}


@pytest.fixture
def recorded_tuning(tmp_path, monkeypatch):
    """The first block, where a strength in the middle is the best, or none for every third."""
    monkeypatch.setenv("VARREG_RESULTS", str(tmp_path))
    block = rivals_tuning.BLOCKS[0]
    rows = []
    for spec in rivals_tuning.block_specs(block):
        strength = max(spec.strength, spec.variance_weight)
        score = 0.5
        if strength:
            place = rivals_tuning.CANDIDATES[spec.method].index(strength)
            off = list(rivals_tuning.CANDIDATES).index(spec.method) % 3 == 0
            score = 0.6 if off else 0.4 + 0.01 * abs(place - 2) + 0.001 * (spec.seed - 1000)
        rows.append({"key": spec.key, **dataclasses.asdict(spec), "val_cross_entropy": score})
    path = Ledger("rivals_tuning").runs_path
    path.parent.mkdir()
    pd.DataFrame(rows).to_csv(path, index=False)
    return block


def test_strengths_are_the_best_on_validation_or_off(recorded_tuning):
    strengths = rivals_tuning.chosen_strengths(recorded_tuning)
    for place, (method, candidates) in enumerate(rivals_tuning.CANDIDATES.items()):
        assert strengths[method] == (0 if place % 3 == 0 else candidates[2])
    assert rivals_tuning.chosen_strengths(rivals_tuning.BLOCKS[1]) is None


def test_every_method_of_a_block_has_the_same_seeds_and_what_is_off_is_not_trained(recorded_tuning):
    listed = specs("rivals")
    seeds: dict[str, list[int]] = {}
    for spec in listed:
        seeds.setdefault(spec.method, []).append(spec.seed)
    assert set(map(tuple, seeds.values())) == {tuple(range(20))}
    kept = {m for place, m in enumerate(rivals_tuning.CANDIDATES) if place % 3}
    assert set(seeds) == {"baseline", "penalized", "two_views"} | kept
    assert {spec.augment for spec in listed} == {False}


def test_the_one_default_is_the_best_on_validation_over_its_data_sets_in_the_record():
    alone = [block for block in rivals_tuning.BLOCKS if (block.model, block.augment) == SMALL]
    alone = {block.dataset: block for block in alone if "tuned" in block.methods}
    wanted = [alone[block.dataset] for block in one_default.BLOCKS if not block.augment]
    means = [rivals_tuning.mean_scores(block) for block in wanted]
    if any(found is None for found in means):
        pytest.skip("the tuning of one of the data sets is not recorded")
    change = sum(found - found["baseline", 0.0] for found in means)
    assert len(wanted) == 4
    best = {method: change[method].idxmin() for method in one_default.STRENGTHS}
    assert best == one_default.STRENGTHS
    assert VariancePenalizedLoss("binary").variance_weight == best["tuned"]
    others = [rivals.SEEDS, rivals_tuning.SEEDS, few_images.SEEDS]
    assert not set(one_default.SEEDS) & set(itertools.chain(*others))


@pytest.mark.parametrize("method", rivals_tuning.CANDIDATES)
def test_where_to_start_is_the_best_on_validation_over_the_recorded_data_sets(method):
    blocks = [block for block in rivals_tuning.BLOCKS if (block.model, block.augment) == SMALL]
    changes = []
    for block in blocks:
        means = rivals_tuning.mean_scores(block) if method in block.methods else None
        if means is not None:
            changes.append(means[method] - means[rivals_tuning.reference(block, method), 0.0])
    if not changes:
        pytest.skip("no tuning of this method is recorded")
    assert METHODS[method].default == sum(changes).idxmin()


def test_rivals_wait_for_their_tuning(tmp_path, monkeypatch):
    monkeypatch.setenv("VARREG_RESULTS", str(tmp_path))
    with pytest.raises(MissingRunsError, match="no block of rivals_tuning is recorded"):
        specs("rivals")


@pytest.mark.parametrize("method", rivals_tuning.CANDIDATES)
def test_every_rival_has_six_candidates_over_a_range(method):
    candidates = rivals_tuning.CANDIDATES[method]
    assert len(set(candidates)) == 6
    assert list(candidates) == sorted(candidates)


def test_the_rivals_are_all_methods_but_those_without_a_choice():
    rest = set(METHODS) - set(rivals_tuning.CANDIDATES)
    assert rest == {"baseline", "penalized", "augmented", "two_views"}


def test_an_unknown_study():
    with pytest.raises(ValueError, match="study is 'heart'; allowed are chest_paper, chest, skin_"):
        specs("heart")


# ---------------------------------------------------------------- what is recorded


@pytest.fixture(params=STUDIES)
def recorded(request):
    """Specs, runs and curves of a study in the results of this checkout."""
    study = request.param
    ledger = Ledger(study)
    runs = ledger.runs()
    if runs.empty:
        pytest.skip(f"{study} is not recorded in {ledger.folder.parent.name}/")
    try:
        listed = specs(study)
    except MissingRunsError as error:
        pytest.skip(f"{study} waits for another study: {error}")
    return {spec.key: spec for spec in listed}, runs, ledger.curves()


def test_recorded_keys_are_unique_and_complete(recorded):
    listed, runs, _ = recorded
    assert runs["key"].is_unique
    if missing := set(listed) - set(runs["key"]):
        study = runs["study"].iloc[0]
        pytest.skip(
            f"{len(missing)} of {len(listed)} runs of {study} are still to be recorded: "
            f"python -m companion run {study}"
        )


def test_every_recorded_run_is_one_of_its_study(recorded):
    listed, runs, _ = recorded
    assert set(runs["key"]) - set(listed) == set(), "rows whose spec has changed since"
    for row in runs.to_dict("records"):
        for field in dataclasses.fields(RunSpec):
            # A row that was recorded before a field came has no value for it.
            expected = getattr(listed[row["key"]], field.name)
            implied = field.name == "augment" and METHODS[row["method"]].augments
            value = row.get(field.name)
            if pd.isna(value):
                value = True if implied else field.default
            assert value == expected


def test_recorded_runs_say_where_they_come_from(recorded):
    _, runs, _ = recorded
    assert runs[list(PROVENANCE_COLUMNS)].notna().all(axis=None)
    contents = runs.groupby(["dataset", "size", "split"], dropna=False)["dataset_sha256"]
    assert (contents.nunique() == 1).all()


def test_recorded_curves_belong_to_their_runs(recorded):
    _, runs, curves = recorded
    by_key = dict(list(curves.groupby("key")))
    assert set(by_key) == set(runs["key"])
    for run in runs.to_dict("records"):
        curve = by_key[run["key"]]
        assert curve["epoch"].tolist() == list(range(1, run["epochs_run"] + 1))
        best = curve.set_index("epoch").loc[run["best_epoch"]]
        watched = f"val_{run['monitor']}"
        assert best[watched] == curve[watched].min()
        assert best["val_cross_entropy"] == pytest.approx(run["val_cross_entropy"], rel=1e-3)
