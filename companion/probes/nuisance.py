"""Whether a network answers by the lesion or by the marker: on the phantom, where that is known.

The marker of a phantom stands in the place of the image's class more often than not in the
training images, and tells nothing in the test images. Every test image is drawn again with the
marker in the other place and without one: whatever the answer then changes by, the marker did.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from companion.probes import Measured
from companion.probes.inside import ARMS, explore
from companion.studies import every
from varreg.lab.attribution import grad_cam, input_gradient, points_inside, share_inside
from varreg.lab.datasets import phantom
from varreg.lab.metrics import auroc
from varreg.lab.runs import Trained
from varreg.lab.training import predict

SHORTCUTS = {
    "phantom_shortcut": phantom.SPURIOUS | {"train": 0.9, "val": 0.9},
    "phantom": phantom.SPURIOUS,
}
"""How much the marker tells, by part. In the phantom as it is validation gives the trap away; as a
shortcut that goes through all that was collected, it is there, too."""

#: One unit a method, with all of its seeds.
SETTINGS = every(dataset=SHORTCUTS, method=ARMS)
SIZE = 28


def measure(dataset: str, method: str, **where: str | Path | None) -> Measured:
    """Train a method on phantoms with every seed and ask each network what it goes by.

    Args:
        dataset: One of :data:`SHORTCUTS`.
        method: One of :data:`companion.probes.inside.ARMS`.
        where: ``device``, as of :func:`varreg.lab.runs.train_run`; ``root`` is not used.

    Returns:
        The rows of :func:`companion.probes.inside.explore`; those of a ``seed`` have also what
        :func:`reliance` and :func:`relevance` find on the test images. Of the unit as a whole, the
        mean share of an image that a drawn lesion takes, ``lesion_area``, and that where markers
        can stand, ``marker_area``.
    """
    data = phantom.load("phantom", SIZE, SHORTCUTS[dataset])
    asked = phantom.counterfactuals(**phantom.part_arguments("phantom", "test", SIZE))
    details = explore(data, "phantom", method, where.get("device"), partial(_ask, asked=asked))
    areas = asked.lesions.mean((1, 2))
    row = {
        "lesion_area": float(areas[areas > 0].mean()),
        "marker_area": float(asked.places.mean()),
        "lesions": int((areas > 0).sum()),
    }
    return Measured(data, row, details)


def _ask(run: Trained, asked: phantom.Counterfactuals) -> dict[str, float]:
    logits = [
        predict(run.model, torch.from_numpy(images), run.fit.scaling) for images in asked.images
    ]
    drawn = asked.images[asked.markers, np.arange(len(asked.labels))]
    has = torch.from_numpy(asked.lesions.any((1, 2)))
    where = next(run.model.parameters()).device
    images = run.fit.scaling(torch.from_numpy(drawn)[has].to(where))
    lesions, places = (torch.from_numpy(each).to(where) for each in (asked.lesions, asked.places))
    return reliance(
        torch.cat(logits, 1).T.double().numpy(), asked.labels, asked.markers
    ) | relevance(run.model, images, lesions[has.to(where)], places)


def reliance(logits: np.ndarray, labels: np.ndarray, markers: np.ndarray) -> dict[str, float]:
    """How far the marker, and nothing else, changes what a network says.

    Args:
        logits: ``(3, N)``: with the marker in the place of class 0, of class 1, and without.
        labels: ``(N,)``.
        markers: Where the marker stands in the images as drawn, ``(N,)``.

    Returns:
        ``flipped``, the share of images whose answer changes when the marker moves to the other
        place, and ``flipped_removed``, when it is taken from the image as drawn; ``pull``, by how
        much the move to the place of class 1 raises the logit on average, in standard deviations
        of the logits without a marker (0 where these do not vary); ``accuracy`` and ``auroc``
        ``_aligned``, with the marker in the place of the class, ``_conflicting``, in the other
        one, and ``_without``.
    """
    images = np.arange(len(labels))
    answers = logits > 0
    spread = logits[2].std()
    found = {
        "flipped": float((answers[0] != answers[1]).mean()),
        "flipped_removed": float((answers[markers, images] != answers[2]).mean()),
        "pull": float((logits[1] - logits[0]).mean() / spread) if spread else 0.0,
    }
    truth = torch.from_numpy(labels)
    for name, places in (("aligned", labels), ("conflicting", 1 - labels), ("without", 2)):
        said = logits[places, images]
        found[f"accuracy_{name}"] = float(((said > 0) == labels).mean())
        found[f"auroc_{name}"] = auroc(torch.from_numpy(said), truth, "binary")
    return found


def relevance(
    model: nn.Module, images: Tensor, lesions: Tensor, places: Tensor
) -> dict[str, float]:
    """How much of what speaks for the disease, in the maps of a network, lies in the lesion.

    Args:
        model: With one logit.
        images: Of those with a lesion, as the model takes them, ``(N, C, H, W)``.
        lesions: Where it is, ``(N, H, W)``.
        places: Where markers can stand, ``(H, W)``.

    Returns:
        For ``cam``, Grad-CAM of the last convolution, and ``gradient``, that of the input: means
        of ``_lesion``, the share inside the lesion, ``_marker``, the share where markers can
        stand, and ``_points``, whether the largest value is inside the lesion.
    """
    found = {}
    for name, maps in (
        ("cam", grad_cam(model, images)),
        ("gradient", input_gradient(model, images)),
    ):
        found[f"{name}_lesion"] = share_inside(maps, lesions).mean().item()
        found[f"{name}_marker"] = share_inside(maps, places).mean().item()
        found[f"{name}_points"] = points_inside(maps, lesions).double().mean().item()
    return found
