"""What recorded models said about every test image, measured as the released notebooks did it.

*Bar* is the progress bar of Keras 3, which shows a mean of running means where a reader expects
the metric. *Images* is the table of :func:`images`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from companion.tables import by_seed
from varreg.lab.metrics import keras_auc
from varreg.lab.predictions import Predictions

#: Images a batch in the released notebooks.
BATCH = 32
#: Keras keeps a probability this far from 0 and 1 before it takes a logarithm.
EPSILON = 1e-7
COMPARED = ("baseline", "penalized", "augmented")
#: Without and with the penalty.
PENALTY = COMPARED[:2]
#: What a unit of the probe ``predictions`` has in common with the run that it repeats.
SAME = ["method", "seed", "dataset", "model", "size"]


def running(scores: Sequence[float], batch_size: int = BATCH) -> np.ndarray:
    """The metric over all samples so far, at the end of each batch.

    Args:
        scores: One number a sample in the order of evaluation, such as 1 for right, 0 for wrong.
        batch_size: Samples a batch.

    Raises:
        ValueError: No score, or a batch size below 1.

    Example:
        >>> running([0, 0, 1, 1], 2).tolist()
        [0.0, 0.5]
    """
    if len(scores) == 0 or batch_size < 1:
        raise ValueError(
            f"{len(scores)} scores in batches of {batch_size}: give one or more of each"
        )
    stops = np.append(np.arange(batch_size, len(scores), batch_size), len(scores))
    return np.cumsum(np.asarray(scores, dtype=np.float64))[stops - 1] / stops


def progress_bar(
    scores: Sequence[float], batch_size: int = BATCH, *, closing: bool = False
) -> float:
    """What the progress bar of Keras 3 shows for an evaluation.

    It is the unweighted mean, over the batches so far, of the running metric. Where the samples
    come sorted by class, that is far from the metric itself. Before Keras 3.11 the last line is
    printed once more when the evaluation closes, and the final value then counts a second time.

    Args:
        scores: One number a sample in the order of evaluation, such as 1 for right, 0 for wrong.
        batch_size: Samples a batch.
        closing: The line that stays on the screen instead of the one after the last batch.

    Raises:
        ValueError: No score, or a batch size below 1.

    Source:
        ``keras/src/utils/progbar.py`` and ``keras/src/callbacks/progbar_logger.py``, Keras 3.10.

    Example:
        A model that calls each of the 624 chest test images pneumonia; the 234 normal ones come
        first.

        >>> right = [0] * 234 + [1] * 390
        >>> round(progress_bar(right), 4), round(progress_bar(right, closing=True), 4)
        (0.2821, 0.2984)
    """
    values = running(scores, batch_size)
    return float(np.append(values, values[-1:] if closing else []).mean())


def bar_weights(count: int, batch_size: int = BATCH, *, closing: bool = True) -> np.ndarray:
    """How much each sample counts in the progress bar: it shows the sum of weights times scores.

    Args:
        count: Samples in all.
        batch_size: Samples a batch.
        closing: As for :func:`progress_bar`.

    Returns:
        ``(count,)``, in the order of evaluation, with the sum 1; the metric itself has equal ones.

    Example:
        >>> bar_weights(4, 2, closing=False).tolist()
        [0.375, 0.375, 0.125, 0.125]
    """
    stops = np.append(np.arange(batch_size, count, batch_size), count)
    each = 1 / stops
    each[-1] *= 1 + closing
    later = np.cumsum(each[::-1])[::-1] / (len(stops) + closing)
    return np.repeat(later, np.diff(stops, prepend=0))


def images(rows: pd.DataFrame, source: str) -> pd.DataFrame:
    """What recorded models said about every test image, in the order of evaluation.

    Args:
        rows: The probe ``predictions``, as from :func:`companion.records.details`.
        source: The study that the models are from.

    Returns:
        Columns ``method, index, label, seen, right, cross_entropy, p_0, p_1, ...``.

    Example:
        >>> rows = pd.DataFrame({"source": ["s"], "method": ["baseline"], "index": [0],
        ...                      "label": [1], "seen": [None], "p_0": [0.2], "p_1": [0.8]})
        >>> images(rows, "s")[["method", "right"]].values.tolist()
        [['baseline', 1]]
    """
    mine = rows[rows["source"] == source] if len(rows) else rows
    if mine.empty:
        return pd.DataFrame(columns=["method", "index", "label", "seen", "right", "cross_entropy"])
    mine = mine.reset_index(drop=True)
    names = [name for name in mine if name.startswith("p_") and mine[name].notna().all()]
    chances = mine[names].to_numpy(dtype=np.float64)
    labels = mine["label"].to_numpy(dtype=int)
    own = np.clip(chances[np.arange(len(labels)), labels], EPSILON, 1 - EPSILON)
    return mine[["method", "index", "label", "seen"]].assign(
        right=(chances.argmax(1) == labels).astype(int), cross_entropy=-np.log(own), **mine[names]
    )


def released_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The skin notebook's accuracy of the penalized model, step by step.

    Args:
        probabilities: Softmax, ``(N, K)``.
        labels: Classes, ``(N,)``.

    Example:
        Right about both images, and wrong about both:

        >>> right, wrong = np.eye(7)[[4, 0]], np.eye(7)[[0, 4]]
        >>> [round(released_accuracy(p, np.array([4, 0])), 6) for p in (right, wrong)]
        [0.857143, 0.857143]
    """
    truth = np.eye(probabilities.shape[1])[labels]  # (N, K): one-hot
    column = probabilities[:, -1:]  # (N, 1): only the last class
    called = (column > 0.5).astype(float)  # (N, 1)
    hits = called == truth  # (N, 1) against (N, K) is broadcast to (N, K)
    return float(hits.mean(axis=1).mean())


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
    scores, truth = _one_list(chances, labels)
    bar = keras_bar_auc(scores, truth)
    found = {
        "bar_accuracy": progress_bar(table["right"], closing=True),
        "bar_cross_entropy": progress_bar(table["cross_entropy"], closing=True),
        "keras_auc": keras_auc(scores, truth),
    }
    if chances.shape[1] == 2:
        return found | {"bar_auroc": bar}
    hits = [released_accuracy(chances[[place]], labels[[place]]) for place in range(len(labels))]
    return found | {
        "bar_keras_auc": bar,
        "last_column_accuracy": float(np.mean(hits)),
        "bar_last_column_accuracy": progress_bar(hits, closing=True),
    }


def with_released_metrics(
    runs: pd.DataFrame,
    rows: pd.DataFrame,
    said: Callable[[str], Mapping[str, Predictions]] = lambda key: {},
) -> pd.DataFrame:
    """Runs with what is known only of those whose predictions are recorded too.

    Args:
        runs: Rows of the study ``chest_paper`` or ``skin_paper``, or of any other.
        rows: The probe ``predictions``, as from :func:`companion.records.details`.
        said: What the run of a key said, by split, as
            :meth:`varreg.lab.ledger.Ledger.predictions` gives it; the labels are those of ``rows``.

    Returns:
        The same rows, with the columns of :func:`released_metrics`, each behind ``test_``; NaN for
        a run whose predictions are not recorded.
    """
    runs = runs.copy()
    for source, study in rows.groupby("source", sort=False) if len(runs) and len(rows) else ():
        mine = runs["study"] == source
        first = study[study["key"] == study["key"].iloc[0]].reset_index(drop=True)
        for key in runs.loc[mine, "key"]:
            if found := said(key):
                _fill(runs, runs["key"] == key, _of_logits(found["test"].logits, first))
        for _, unit in study.groupby("key", sort=False) if mine.any() else ():
            repeated = mine & (runs[SAME] == list(unit.iloc[0][SAME])).all(axis=1)
            _fill(runs, repeated, images(unit, source))
    return runs


def _of_logits(logits: np.ndarray, labelled: pd.DataFrame) -> pd.DataFrame:
    """As :func:`images`, from recorded logits and the labels of a unit of the probe."""
    chances = _probabilities(logits)
    columns = {f"p_{place}": column for place, column in enumerate(chances.T)}
    return images(labelled.assign(**columns), labelled["source"][0])


def _one_list(chances: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels as Keras's AUC() has them: of the second of two classes, or of all."""
    truth = np.eye(chances.shape[1])[labels]
    return (chances[:, 1], truth[:, 1]) if chances.shape[1] == 2 else (chances, truth)


def _probabilities(logits: np.ndarray) -> np.ndarray:
    """Of each class, ``(N, K)``; one logit is that of the second of two classes."""
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    return softmax(logits.astype(np.float64), axis=1)


def _fill(runs: pd.DataFrame, found: pd.Series, table: pd.DataFrame) -> None:
    """Write the released metrics of a model to its row, where they do not stand there yet."""
    if not found.any():
        return
    for name, value in released_metrics(table).items():
        column = f"test_{name}"
        if column not in runs:
            runs[column] = np.nan
        runs.loc[found & runs[column].isna(), column] = value


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
        scores, truth = _one_list(_chances(group), group["label"].to_numpy(dtype=int))
        keras = keras_auc(scores, truth)
        exact = float(roc_auc_score(truth, scores, average="micro"))
        rows.append((method, keras, exact, keras - exact))
    return pd.DataFrame(rows, columns=["method", "keras", "exact", "effect"])


def changed_by_penalty(
    runs: pd.DataFrame, said: Mapping[str, Mapping[str, Predictions]], table: pd.DataFrame
) -> pd.DataFrame:
    """On how many test images the penalized model says another class than the baseline.

    Recorded logits have three digits. Where two classes have the same, the model says either, so
    that this is no change.

    Args:
        runs: Rows of the study ``chest_paper`` or ``skin_paper``.
        said: What they said, by key and split, as from
            :meth:`varreg.lab.ledger.Ledger.all_predictions`.
        table: As from :func:`images`, of the same study: one seed, where ``said`` has none.

    Returns:
        A row a seed of which both models are recorded: ``images``; ``changed``, those of them
        with another most probable class; and ``largest``, the largest change of any probability.

    Example:
        >>> table = pd.DataFrame({"method": ["baseline", "penalized"], "index": [0, 0],
        ...                       "p_0": [0.52, 0.49], "p_1": [0.48, 0.51]})
        >>> changed_by_penalty(pd.DataFrame(), {}, table).round(2).values.tolist()
        [[1.0, 1.0, 0.03]]
    """
    without, penalized = by_seed(runs, "key", *PENALTY)
    pairs = [
        [_probabilities(said[key]["test"].logits) for key in keys]
        for keys in zip(without, penalized, strict=True)
        if said.keys() >= set(keys)
    ]
    if not pairs:
        models = [table[table["method"] == name].sort_values("index") for name in PENALTY]
        pairs = [[_chances(model) for model in models]] if all(map(len, models)) else []
    rows = []
    for first, second in pairs:
        top, other = (chances == chances.max(axis=1, keepdims=True) for chances in (first, second))
        changed = int((~(top & other).any(axis=1)).sum())
        rows.append((len(first), changed, float(np.abs(first - second).max())))
    return pd.DataFrame(rows, columns=["images", "changed", "largest"])


def changed_table(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """:func:`changed_by_penalty` as printed, a row a data set.

    Args:
        found: Name of the data -> as from :func:`changed_by_penalty`.
    """
    rows = [
        {
            "Data": name,
            "Test images": f"{seeds['images'].iloc[0]:,}",
            "Seeds": len(seeds),
            "Predictions that the penalty changes, median (lowest to highest)": _counted(seeds),
            "Largest change of a probability": f"{seeds['largest'].max():.4f}",
        }
        for name, seeds in found.items()
        if len(seeds)
    ]
    return pd.DataFrame(rows)


def changed_phrase(seeds: pd.DataFrame) -> str:
    """:func:`changed_by_penalty` in words.

    Example:
        >>> rows = [(1001, 0, 0.001), (1001, 3, 0.0198), (1001, 1, 0.002)]
        >>> found = pd.DataFrame(rows, columns=["images", "changed", "largest"])
        >>> changed_phrase(found)
        '1 (0 to 3) of 1,001 test images, median of 3 seeds, and no probability by more than 0.020'
    """
    if seeds.empty:
        return "a number of test images that is not recorded"
    over = "with one seed" if len(seeds) == 1 else f"median of {len(seeds)} seeds"
    bound = math.ceil(1000 * seeds["largest"].max() - 1e-9) / 1000
    return (
        f"{_counted(seeds)} of {seeds['images'].iloc[0]:,} test images, {over}, "
        f"and no probability by more than {bound:.3f}"
    )


def _counted(seeds: pd.DataFrame) -> str:
    changed = seeds["changed"]
    ends = f" ({changed.min()} to {changed.max()})" if len(seeds) > 1 else ""
    return f"{changed.median():g}{ends}"


def _chances(table: pd.DataFrame) -> np.ndarray:
    """Probabilities, ``(N, K)``."""
    names = [name for name in table if name.startswith("p_")]
    return table[names].to_numpy(dtype=np.float64)
