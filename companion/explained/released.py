"""Our recorded models, measured as the released notebooks measured theirs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from companion.explained.bar import BATCH, images, progress_bar
from companion.explained.scores import released_accuracy
from varreg.lab.metrics import keras_auc

__all__ = ["keras_bar_auc", "released_metrics", "threshold_effects", "with_released_metrics"]

#: What a unit of the probe ``predictions`` has in common with the run that it repeats.
SAME = ["method", "seed", "dataset", "model", "size"]


def keras_bar_auc(scores: np.ndarray, truth: np.ndarray, batch_size: int = BATCH) -> float:
    """What the progress bar of Keras 3 ends at for ``AUC()``.

    The area so far is 0 as long as all images were of one class, as in the first seven batches of
    the chest test images.

    Args:
        scores: As for :func:`varreg.lab.metrics.keras_auc`, in the order of evaluation.
        truth: As there.
        batch_size: Images a batch.

    Example:
        Sorted by class, a perfect model does not look like one:

        >>> keras_bar_auc(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1]), 2)
        0.6666666666666666
    """
    stops = [*range(batch_size, len(scores), batch_size), len(scores)]
    areas = [keras_auc(scores[:stop], truth[:stop]) for stop in stops]
    return float(np.mean([*areas, areas[-1]]))


def released_metrics(table: pd.DataFrame) -> dict[str, float]:
    """The quantities of the released logs, for one recorded model.

    Args:
        table: As from :func:`images`, of one model.

    Returns:
        By the names that :class:`companion.published.Number` has for them: ``keras_auc``, for
        several classes ``last_column_accuracy`` (see :func:`released_accuracy`) and, behind
        ``bar_``, where the progress bar ends for each of them, the accuracy and the cross-entropy.
    """
    chances, labels = _chances(table), table["label"].to_numpy(dtype=int)
    found = {
        "bar_accuracy": progress_bar(table["right"], closing=True),
        "bar_cross_entropy": progress_bar(table["cross_entropy"], closing=True),
    }
    if chances.shape[1] == 2:
        area = {"keras_auc": keras_auc(chances[:, 1], labels)}
        return found | area | {"bar_auroc": keras_bar_auc(chances[:, 1], labels)}
    truth = np.eye(chances.shape[1])[labels]
    hits = [released_accuracy(chances[[place]], labels[[place]]) for place in range(len(labels))]
    return found | {
        "keras_auc": keras_auc(chances, truth),
        "bar_keras_auc": keras_bar_auc(chances, truth),
        "last_column_accuracy": float(np.mean(hits)),
        "bar_last_column_accuracy": progress_bar(hits, closing=True),
    }


def with_released_metrics(
    runs: pd.DataFrame, predictions: pd.DataFrame, details: pd.DataFrame
) -> pd.DataFrame:
    """Runs with what is known only of those whose predictions are recorded too.

    Args:
        runs: Rows of the study ``chest_paper`` or ``skin_paper``, or of any other.
        predictions: Rows of the probe ``predictions``.
        details: Its ``curves()``.

    Returns:
        The same rows, with the columns of :func:`released_metrics`, each behind ``test_``; NaN for
        a run whose predictions are not recorded.
    """
    runs = runs.copy()
    for unit in predictions.to_dict("records") if len(runs) else ():
        found = runs["study"] == unit["source"]
        if found.any():  # others need not have the columns
            found &= (runs[SAME] == [unit[name] for name in SAME]).all(axis=1)
        if not found.any():
            continue
        table = images(predictions[predictions["key"] == unit["key"]], details, unit["source"])
        for name, value in released_metrics(table).items():
            column = f"test_{name}"
            if column not in runs:
                runs[column] = np.nan
            runs.loc[found & runs[column].isna(), column] = value
    return runs


def threshold_effects(table: pd.DataFrame) -> pd.DataFrame:
    """How far the 200 thresholds of Keras move the area under the ROC curve.

    Args:
        table: As from :func:`images`.

    Returns:
        A row a model: ``method``, ``keras`` (:func:`varreg.lab.metrics.keras_auc`), ``exact`` (the
        same average without thresholds) and ``effect``, the first minus the second.
    """
    rows = []
    for method, group in table.groupby("method", sort=False):
        chances, labels = _chances(group), group["label"].to_numpy(dtype=int)
        scores, truth = chances, np.eye(chances.shape[1])[labels]
        if chances.shape[1] == 2:
            scores, truth = scores[:, 1], truth[:, 1]
        keras = keras_auc(scores, truth)
        exact = float(roc_auc_score(truth, scores, average="micro"))
        rows.append({"method": method, "keras": keras, "exact": exact, "effect": keras - exact})
    return pd.DataFrame(rows, columns=["method", "keras", "exact", "effect"])


def _chances(table: pd.DataFrame) -> np.ndarray:
    """Probabilities, ``(N, K)``."""
    names = [name for name in table if name.startswith("p_")]
    return table[names].to_numpy(dtype=np.float64)
