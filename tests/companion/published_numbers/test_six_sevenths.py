import pytest
from sklearn.metrics import balanced_accuracy_score

from companion import published
from companion.published_numbers import six_sevenths
from tests.companion.synthetic_numbers import SKIN


def test_constant_answers_get_six_sevenths_but_for_the_last_class():
    rows = six_sevenths.sevenths(SKIN).set_index("model")
    constant = rows[rows.index.str.startswith("always")]
    assert len(constant) == 7
    last = f"always {published.SKIN_CLASSES[-1]}"
    assert constant["released"].drop(last).tolist() == pytest.approx([6 / 7] * 6)
    assert constant.loc[last, "released"] == pytest.approx(1 / 7)
    labels = SKIN.loc[SKIN["method"] == "baseline", "label"]
    assert constant["accuracy"].sum() == pytest.approx(1)
    assert constant.loc["always melanoma", "accuracy"] == (labels == 5).mean()


def test_balanced_accuracy_is_that_of_scikit_learn():
    model = SKIN[SKIN["method"] == "baseline"]
    called = model[[f"p_{place}" for place in range(7)]].to_numpy().argmax(1)
    found = six_sevenths.sevenths(SKIN).set_index("model").loc["baseline", "balanced_accuracy"]
    assert found == pytest.approx(balanced_accuracy_score(model["label"], called))


def test_the_models_that_score_six_sevenths_are_counted():
    rows = six_sevenths.sevenths(SKIN)
    same = (rows["released"] - 6 / 7).abs() < 1e-9
    facts = six_sevenths.facts(SKIN)
    assert (facts["sevenths_same"], facts["sevenths_models"]) == (same.sum(), len(rows))
    real = rows.loc[same, "accuracy"]
    assert (facts["sevenths_low"], facts["sevenths_high"]) == (real.min(), real.max())
    assert facts["sevenths_fraction"] == 6 / 7
