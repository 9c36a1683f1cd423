"""What `companion.predictions` says that Keras does, against Keras itself (on PyTorch)."""

import re

import numpy as np
import pytest
from packaging.version import Version

from companion import predictions
from companion.published import CHEST_IMAGES
from companion.published_numbers import progress_bar
from varreg.lab.metrics import keras_auc

# Keras up to 3.10 asks torch for an array in a way that NumPy 2 has come to dislike.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

NORMAL, PNEUMONIA = CHEST_IMAGES["test"]
LABELS = np.repeat([0.0, 1.0], [NORMAL, PNEUMONIA])


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        found = pytest.importorskip(
            "keras", minversion="3", reason="needs Keras 3: pip install 'varreg[keras]'"
        )
        assert found.backend.backend() == "torch"
        yield found


def probabilities(kind):
    """Probability of pneumonia for the chest test images, in file order."""
    random = np.random.default_rng(0)
    return {
        "every image pneumonia": np.full(len(LABELS), 0.66),
        "every image normal": np.full(len(LABELS), 0.4),
        "one model": np.clip(random.normal(0.45 + 0.4 * LABELS, 0.2), 0.01, 0.99),
    }[kind]


def evaluate(keras, chance, labels):
    """Returned values, the bar after the last batch, and the bar as it stays on the screen."""
    after = {}

    class Logger(keras.callbacks.ProgbarLogger):
        def on_test_batch_end(self, batch, logs=None):
            super().on_test_batch_end(batch, logs)
            for name, (total, count) in self.progbar._values.items():
                after[name] = float(total) / count

    # The network hands on its input, so that it predicts what the test wants.
    model = keras.Sequential([keras.Input((1,)), keras.layers.Activation("linear")])
    model.compile(loss="binary_crossentropy", metrics=["accuracy"])
    returned = model.evaluate(
        chance[:, None],
        labels[:, None],
        batch_size=predictions.BATCH,
        verbose=1,
        return_dict=True,
        callbacks=[Logger()],
    )
    return returned, after


def last_line(text):
    """Name -> value in the last line that a progress bar printed."""
    line = re.split(r"[\r\n\x08]+", text.strip())[-1]
    return {name: float(value) for name, value in re.findall(r"(\w+): ([\d.e+-]+)", line)}


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
@pytest.mark.parametrize("kind", ["every image pneumonia", "every image normal", "one model"])
def test_the_progress_bar_is_that_of_keras(keras, capsys, kind, order):
    places = np.arange(len(LABELS))
    if order == "shuffled":
        places = np.random.default_rng(1).permutation(places)
    chance, labels = probabilities(kind)[places], LABELS[places]
    returned, after = evaluate(keras, chance, labels)
    shown = last_line(capsys.readouterr().out)
    scores = {
        "accuracy": (chance > 0.5) == (labels == 1),
        "loss": -np.log(np.where(labels == 1, chance, 1 - chance)),
    }
    version = Version(keras.__version__)
    for name, values in scores.items():
        metric = np.mean(values)
        assert returned[name] == pytest.approx(metric, abs=2e-6)
        ours = (
            predictions.progress_bar(values, closing=True) if version < Version("3.11") else metric
        )
        assert shown[name] == pytest.approx(ours, abs=1.01 * progress_bar.ROUNDING)
        if version < Version("3.11"):
            assert after[name] == pytest.approx(predictions.progress_bar(values), abs=2e-6)


def test_keras_shows_an_all_pneumonia_classifier_as_in_table_1(keras, capsys):
    if Version(keras.__version__) >= Version("3.11"):
        pytest.skip("since 3.11 the last line of Keras is the metric itself")
    returned, after = evaluate(keras, probabilities("every image pneumonia"), LABELS)
    assert returned["accuracy"] == pytest.approx(0.625)
    assert f"{after['accuracy']:.4f}" == "0.2821"
    assert last_line(capsys.readouterr().out)["accuracy"] == 0.2984


def test_the_released_skin_accuracy_is_that_of_keras(keras):
    random = np.random.default_rng(0)
    chance = random.dirichlet(np.full(7, 0.4), size=100).astype(np.float32)
    labels = random.integers(0, 7, size=100)
    truth = np.eye(7, dtype=np.float32)[labels]

    def accuracy(y_true, y_pred):
        return keras.metrics.binary_accuracy(y_true, y_pred[:, -1:])

    model = keras.Sequential([keras.Input((7,)), keras.layers.Activation("linear")])
    model.compile(loss="categorical_crossentropy", metrics=[accuracy])
    above = chance[:, -1] > 0.5
    assert 0 < above.sum() < len(above)
    for mine in (np.arange(100), np.flatnonzero(~above)):
        _, found = model.evaluate(chance[mine], truth[mine], verbose=0)
        ours = predictions.released_accuracy(chance[mine], labels[mine])
        assert found == pytest.approx(ours, abs=1e-6)
    assert found == pytest.approx(6 / 7, abs=1e-6)


@pytest.mark.parametrize("kind", ["every image pneumonia", "every image normal", "one model"])
def test_the_area_of_one_output_is_that_of_keras(keras, kind):
    chance = probabilities(kind)
    metric = keras.metrics.AUC(name="auc")
    metric.update_state(LABELS[:, None], chance[:, None])
    assert keras_auc(chance, LABELS) == pytest.approx(float(metric.result()), abs=2e-6)


def test_the_area_of_one_hot_labels_is_that_of_keras_after_every_batch(keras):
    random = np.random.default_rng(0)
    chance = random.dirichlet(np.full(7, 0.4), size=100).astype(np.float32)
    labels = np.eye(7)[random.integers(0, 7, size=100)]
    chance[:10] = np.round(chance[:10] * 199) / 199  # on the thresholds
    metric = keras.metrics.AUC(name="auc")
    for start in range(0, 100, predictions.BATCH):
        mine = slice(start, start + predictions.BATCH)
        metric.update_state(labels[mine], chance[mine])
        so_far = slice(0, mine.stop)
        expected = float(metric.result())
        assert keras_auc(chance[so_far], labels[so_far]) == pytest.approx(expected, abs=2e-6)


def test_the_area_of_one_class_is_that_of_keras(keras):
    metric = keras.metrics.AUC(name="auc")
    metric.update_state(np.zeros(3), np.array([0.1, 0.5, 0.9]))
    assert keras_auc(np.array([0.1, 0.5, 0.9]), np.zeros(3)) == float(metric.result()) == 0
