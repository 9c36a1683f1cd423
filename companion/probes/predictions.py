"""What the models of the released protocol say about every test image.

Each model is trained once more from its recorded settings. Its metrics are part of the row, so
that a reader can hold them against the row of the study.
"""

from __future__ import annotations

from pathlib import Path

import torch

from companion import studies
from companion.probes import Measured
from varreg.features import FeatureTap
from varreg.lab.datasets import Subset
from varreg.lab.metrics import classification_metrics
from varreg.lab.runs import initial_model, load_data, train_run
from varreg.lab.training import Scaling, batches
from varreg.variance import feature_variance

METRICS = ("cross_entropy", "accuracy", "auroc", "balanced_accuracy")
UNTRAINED = "untrained"
#: One unit a model: seed 0 of every method, and an untrained network for the skin data.
SETTINGS = [
    {"source": source, "method": method, "seed": 0}
    for source, methods in {
        "chest_paper": ("baseline", "penalized", "augmented"),
        "skin_paper": ("baseline", "penalized", UNTRAINED),
    }.items()
    for method in methods
]


def measure(source: str, method: str, seed: int, **where: str | Path | None) -> Measured:
    """Train one model of a study and let it predict the test images in file order.

    Args:
        source: Study that the model is from.
        method: Its method; ``"untrained"`` for initial weights.
        seed: Its seed.
        where: ``root`` and ``device``, as of :func:`varreg.lab.runs.train_run`.

    Returns:
        A row an image: ``index``, ``label``, ``seen`` (whether the training split holds another
        image of the lesion; ``None`` where lesions are not known) and a probability a class.
    """
    trained = "baseline" if method == UNTRAINED else method
    (spec,) = studies.specs(source, method=trained, seed=seed)
    if method == UNTRAINED:
        data = load_data(spec, where.get("root"))
        model = initial_model(spec, data).eval()
        scaling = Scaling.of(data.train.images, spec.normalize)
    else:
        run = train_run(spec, **where)
        data, model, scaling = run.data, run.model, run.fit.scaling
    logits, variance = _predict(model, data.test, scaling, spec.batch_size)
    metrics = classification_metrics(logits, data.test.labels, data.task)
    if data.task == "binary":
        positive = logits.view(-1).sigmoid()
        probabilities = torch.stack([1 - positive, positive], 1)
    else:
        probabilities = logits.softmax(1)
    details = [
        {"index": index, "label": label, "seen": seen}
        | {f"p_{place}": value for place, value in enumerate(values)}
        for index, label, seen, values in zip(
            range(len(data.test)),
            data.test.labels.tolist(),
            _seen(data.train, data.test),
            probabilities.tolist(),
            strict=True,
        )
    ]
    row = {"dataset": spec.dataset, "model": spec.model, "size": spec.size}
    row |= {f"test_{name}": metrics[name] for name in METRICS}
    return Measured(data, row | {"test_feature_variance": variance}, details)


@torch.inference_mode()
def _predict(
    model: torch.nn.Module, subset: Subset, scaling: Scaling, batch_size: int
) -> tuple[torch.Tensor, float]:
    """Logits, and the penalty's mean over the batches, in file order as in the notebooks."""
    where = next(model.parameters()).device
    logits, penalties = [], []
    with FeatureTap(model) as tap:
        for chosen in batches(len(subset), batch_size):
            images = subset.images.index_select(0, chosen).to(where)
            logits.append(model(scaling(images)).cpu())
            penalties.append(len(chosen) * feature_variance(tap.take()).item())
    return torch.cat(logits), sum(penalties) / len(subset)


def _seen(train: Subset, test: Subset) -> list[int | None]:
    if train.groups is None or test.groups is None:
        return [None] * len(test)
    return torch.isin(test.groups, train.groups).int().tolist()
