import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from companion import predictions
from tests.companion.synthetic_numbers import (
    ANSWERS,
    CHEST,
    EMPTY,
    NO_IMAGES,
    PROTOCOL,
    SKIN,
    shown_by_hand,
)
from varreg.lab.predictions import Predictions


@pytest.mark.parametrize("closing", [False, True])
@pytest.mark.parametrize(("count", "batch_size"), [(1, 4), (4, 4), (5, 2), (64, 32), (70, 32)])
def test_the_bar_is_a_weighted_mean_and_equals_the_running_sum(count, batch_size, closing):
    scores = np.random.default_rng(count).random(count)
    wanted = shown_by_hand(list(scores), batch_size, closing)
    assert predictions.progress_bar(scores, batch_size, closing=closing) == pytest.approx(wanted)
    weights = predictions.bar_weights(count, batch_size, closing=closing)
    assert weights @ scores == pytest.approx(wanted)
    assert weights.sum() == pytest.approx(1)
    assert (np.diff(weights) <= 1e-15).all()


def test_the_bar_equals_the_metric_for_one_batch_only():
    right = [1, 0, 0, 1]
    assert predictions.progress_bar(right, 4) == 0.5
    assert predictions.progress_bar([1, 1, 0], 2) == pytest.approx((1 + 2 / 3) / 2)


def test_images_are_scored_by_their_own_class():
    assert CHEST["method"].unique().tolist() == ["baseline", "penalized", "augmented"]
    assert SKIN["method"].unique().tolist() == ["baseline", "penalized", "untrained"]
    assert "p_2" not in CHEST
    first = CHEST.iloc[0]
    assert first["label"] == 0
    assert first["cross_entropy"] == pytest.approx(-math.log(first["p_0"]))
    assert (CHEST["right"] == ((CHEST["p_1"] > 0.5) == (CHEST["label"] == 1))).all()


@pytest.mark.parametrize("classes", [3, 7])
def test_the_released_metric_depends_on_the_last_column_only(classes):
    random = np.random.default_rng(0)
    chances = random.dirichlet(np.full(classes, 0.3), size=200)
    above = (chances[:, -1] > 0.5).mean()
    assert 0 < above < 1
    wanted = (1 - above) * (classes - 1) / classes + above / classes
    for _ in range(2):
        labels = random.integers(0, classes, size=200)
        assert predictions.released_accuracy(chances, labels) == pytest.approx(wanted)


def test_released_metrics_of_the_skin_models_by_hand():
    table = SKIN[SKIN["method"] == "baseline"]
    chances = table[[f"p_{place}" for place in range(7)]].to_numpy()
    truth = np.eye(7)[table["label"].to_numpy(int)]
    found = predictions.released_metrics(table)
    micro = roc_auc_score(truth, chances, average="micro")
    assert found["keras_auc"] == pytest.approx(micro, abs=1e-3)
    hits = ((chances[:, 6:] > 0.5) == truth).mean(axis=1)
    assert found["last_column_accuracy"] == pytest.approx(hits.mean())
    right = list(chances.argmax(1) == table["label"])
    for name, scores in (("accuracy", right), ("last_column_accuracy", list(hits))):
        assert found[f"bar_{name}"] == pytest.approx(shown_by_hand(scores, 32, closing=True))
    assert "bar_auroc" not in found


def test_released_metrics_of_the_chest_models_by_hand():
    table = CHEST[CHEST["method"] == "augmented"]
    found = predictions.released_metrics(table)
    chance, label = table["p_1"].to_numpy(), table["label"].to_numpy()
    assert found["keras_auc"] == pytest.approx(roc_auc_score(label, chance), abs=1e-3)
    areas = []
    for stop in (*range(32, 624, 32), 624):
        both = len(set(label[:stop])) == 2  # of one class alone there is no area: Keras says 0
        areas.append(roc_auc_score(label[:stop], chance[:stop]) if both else 0.0)
    assert areas[:7] == [0.0] * 7
    assert found["bar_auroc"] == pytest.approx(np.mean([*areas, areas[-1]]), abs=2e-3)
    assert "last_column_accuracy" not in found


def test_only_runs_whose_predictions_are_recorded_get_the_released_metrics():
    found = predictions.with_released_metrics(PROTOCOL, ANSWERS)
    assert len(found) == len(PROTOCOL)
    first = found["seed"] == 0
    assert found.loc[first, "test_bar_accuracy"].notna().all()
    assert found.loc[~first, "test_bar_accuracy"].isna().all()
    mine = found[first & (found["method"] == "augmented")].iloc[0]
    wanted = predictions.released_metrics(CHEST[CHEST["method"] == "augmented"])
    assert mine["test_bar_auroc"] == wanted["bar_auroc"]
    # What a run recorded itself stays.
    own = predictions.with_released_metrics(PROTOCOL.assign(test_keras_auc=0.5), ANSWERS)
    assert (own["test_keras_auc"] == 0.5).all()
    # Another data set, size or study is another run.
    for other in ({"dataset": "phantom"}, {"size": 28}, {"study": "chest"}):
        same = predictions.with_released_metrics(PROTOCOL.assign(**other), ANSWERS)
        assert list(same) == list(PROTOCOL)
    for runs in (EMPTY, PROTOCOL):
        pd.testing.assert_frame_equal(predictions.with_released_metrics(runs, EMPTY), runs)


def test_what_the_thresholds_change():
    for table in (CHEST, SKIN):
        found = predictions.threshold_effects(table)
        assert found["method"].tolist() == list(dict.fromkeys(table["method"]))
        assert (found["effect"] == found["keras"] - found["exact"]).all()
        assert found["effect"].abs().max() < 2e-3
    assert predictions.threshold_effects(NO_IMAGES).empty


def test_changed_predictions_are_counted_one_by_one():
    found = predictions.changed_by_penalty(EMPTY, {}, SKIN)
    one, two = (
        SKIN[SKIN["method"] == name][[f"p_{place}" for place in range(7)]].to_numpy()
        for name in ("baseline", "penalized")
    )
    changed = sum(int(a.argmax() != b.argmax()) for a, b in zip(one, two, strict=True))
    assert found["changed"].tolist() == [changed]
    assert changed > 0
    assert found["images"].tolist() == [len(one)]
    assert found["largest"].tolist() == [pytest.approx(max(abs(one - two).ravel()))]
    mixed = predictions.changed_by_penalty(EMPTY, {}, SKIN.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(mixed, found)
    none = predictions.changed_by_penalty(EMPTY, {}, NO_IMAGES)
    assert none.empty
    assert predictions.changed_phrase(none).endswith("not recorded")
    table = predictions.changed_table({"chest": none, "skin": found})
    assert table["Data"].tolist() == ["skin"]
    assert table.iloc[0, 3] == str(changed)


@pytest.mark.parametrize("outputs", [1, 3])
def test_changed_predictions_of_every_seed_that_recorded_them(outputs):
    random = np.random.default_rng(outputs)
    runs, said, wanted = [], {}, []
    for seed in range(3):
        logits = random.normal(size=(2, 40, outputs)).astype(np.float16)
        logits[:, 0] = 0.0  # the model says either, both times
        for method, values in zip(predictions.PENALTY, logits, strict=True):
            runs.append({"key": f"{method}{seed}", "seed": seed, "method": method})
            names = [str(place) for place in range(40)]
            said[f"{method}{seed}"] = {"test": Predictions(values.astype(np.float32), names)}
        calls = [z[:, 0] > 0 if outputs == 1 else z.argmax(1) for z in logits]
        wanted.append(int((calls[0] != calls[1]).sum()))
    found = predictions.changed_by_penalty(pd.DataFrame(runs), said, SKIN)
    assert found["changed"].tolist() == wanted
    assert min(wanted) > 0
    assert (found["images"] == 40).all()
    # A seed of which one model said nothing is no pair.
    fewer = {key: value for key, value in said.items() if key != "penalized1"}
    found = predictions.changed_by_penalty(pd.DataFrame(runs), fewer, SKIN)
    assert found["changed"].tolist() == [wanted[0], wanted[2]]
    # Equal in three digits, other in the last one: no change.
    said["penalized0"] = said["baseline0"]
    assert predictions.changed_by_penalty(pd.DataFrame(runs), said, SKIN)["changed"][0] == 0
