"""Lambda is inert: the scale of the cross-entropy under several optimizers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from companion import style, tables, words
from varreg.features import FeatureTap
from varreg.lab.datasets import phantom
from varreg.lab.methods import BLUE
from varreg.lab.models import build
from varreg.lab.specs import RunSpec
from varreg.loss import VariancePenalizedLoss

TRAJECTORIES = ["train_cross_entropy", "val_cross_entropy"]
_ADAM = partial(torch.optim.Adam, lr=1e-3, eps=1e-30)
#: Optimizers of the live demonstration. The epsilon of all but the second is too small to be seen
#: beside any gradient.
OPTIMIZERS = {
    "Adam": _ADAM,
    "Adam, large epsilon": partial(_ADAM, eps=1e-3),
    "Adam, L2 penalty on the weights": partial(_ADAM, weight_decay=1e-2),
    "AdamW, decoupled weight decay": partial(
        torch.optim.AdamW, lr=1e-3, eps=1e-30, weight_decay=1e-2
    ),
    "SGD": partial(torch.optim.SGD, lr=1e-2),
}
#: A broad pale line stays visible under a thin dark one that covers it.
LAYERS = ({"color": "#BDBDBD", "lw": 6}, {"color": BLUE, "lw": 2.6}, {"color": "black", "lw": 1.1})


def phantom_images(count: int = 32, size: int = 28) -> tuple[Tensor, Tensor]:
    """Phantoms in float64 between 0 and 1, and their labels.

    Example:
        >>> images, labels = phantom_images(4)
        >>> images.shape, images.dtype, labels.sum().item()
        (torch.Size([4, 1, 28, 28]), torch.float64, 2)
    """
    drawing = phantom.draw(count, size=size)
    return torch.from_numpy(drawing.images).double() / 255, torch.from_numpy(drawing.labels)


def few_steps(optimizer: str, lambda_: float, *, steps: int = 10, quotient: float = 1.0) -> Tensor:
    """Train the small CNN for a few steps in float64 and follow the unscaled cross-entropy.

    Args:
        optimizer: A name of :data:`OPTIMIZERS`.
        lambda_: Scale of the cross-entropy.
        steps: Full-batch steps.
        quotient: ``variance_weight / lambda_``, which is held.

    Returns:
        The cross-entropy before each step.

    Example:
        >>> bool((few_steps("Adam", 4.0, steps=3) == few_steps("Adam", 1.0, steps=3)).all())
        True
    """
    images, labels = phantom_images(size=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build("small_cnn", in_channels=1, size=images.shape[-1], n_outputs=1).double()
    criterion = VariancePenalizedLoss("binary", quotient * lambda_, 1.0, lambda_)
    optimize = OPTIMIZERS[optimizer](model.parameters())
    values = []
    with FeatureTap(model) as tap:
        for _ in range(steps):
            parts = criterion(model(images), labels, tap.take())
            optimize.zero_grad()
            parts.total.backward()
            optimize.step()
            values.append(parts.cross_entropy.detach())
    return torch.stack(values)


def steps_table(lambdas: Sequence[float] = (0.25, 4.0), steps: int = 10) -> pd.DataFrame:
    """Whether a few steps with another lambda give the same numbers to the last bit.

    Powers of two scale floating-point numbers exactly, so that nothing but the optimizer can make
    a difference.

    Example:
        >>> steps_table(lambdas=[4.0], steps=2)["lambda = 4"].tolist()
        ['the same', 'differs', 'differs', 'the same', 'differs']
    """
    rows = []
    for name in OPTIMIZERS:
        row, reference = {"Optimizer": name}, few_steps(name, 1.0, steps=steps)
        for lambda_ in lambdas:
            same = torch.equal(few_steps(name, lambda_, steps=steps), reference)
            row[f"lambda = {lambda_:g}"] = "the same" if same else "differs"
        rows.append(row)
    return pd.DataFrame(rows)


def with_family(runs: pd.DataFrame, families: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    """Name the family of optimizer settings that each run belongs to, in the column ``family``.

    Args:
        runs: Rows of the study ``inert_lambda``.
        families: Name -> settings; a setting not named has the default of a
            :class:`~varreg.lab.specs.RunSpec`. Runs of no family are left out.

    Example:
        >>> runs = pd.DataFrame({"optimizer": ["adam", "adam"], "adam_epsilon": [1e-8, 1e-2]})
        >>> families = {"plain": {"optimizer": "adam"}, "large": {"adam_epsilon": 1e-2}}
        >>> with_family(runs, families)["family"].tolist()
        ['plain', 'large']
    """
    if runs.empty:
        return runs.assign(family=[])
    defaults = {field.name: field.default for field in dataclasses.fields(RunSpec)}
    names = list(dict.fromkeys(name for settings in families.values() for name in settings))
    parts = []
    for family, settings in families.items():
        wanted = [settings.get(name, defaults[name]) for name in names]
        parts.append(runs[(runs[names] == wanted).all(axis=1)].assign(family=family))
    return pd.concat(parts)


def distances(epochs: pd.DataFrame, reference: float = 1.0) -> pd.DataFrame:
    """How far trajectories with another lambda are from those with ``lambda = reference``.

    The distance of two trajectories is the largest difference of their unscaled cross-entropy, in
    training or validation, at any epoch that both have.

    Args:
        epochs: Epochs as from :func:`companion.records.details`, with ``family``.
        reference: The lambda compared with.

    Returns:
        Columns ``family, kind, lambda_, seed, distance``: ``kind`` is ``"lambda"`` for the same
        seed with another lambda, ``"seed"`` for the same lambda with another seed than the first.
    """
    rows = []
    for family, group in [] if epochs.empty else epochs.groupby("family", sort=False):
        tracks = {
            run: track.set_index("epoch")[TRAJECTORIES]
            for run, track in group.groupby(["lambda_", "seed"])
        }
        seeds = sorted(seed for lambda_, seed in tracks if lambda_ == reference)
        for (lambda_, seed), track in tracks.items():
            same_lambda = lambda_ == reference
            if seed not in seeds or (same_lambda and seed == seeds[0]):
                continue
            other = tracks[(reference, seeds[0] if same_lambda else seed)]
            distance = float((track - other).abs().max(axis=None))
            kind = "seed" if same_lambda else "lambda"
            rows.append((family, kind, lambda_, seed, distance))
    return pd.DataFrame(rows, columns=["family", "kind", "lambda_", "seed", "distance"])


def table(epochs: pd.DataFrame) -> pd.DataFrame:
    """:func:`distances` as printed: the largest over seeds, and lambda's as a share of a seed's."""
    rows = []
    for family, group in distances(epochs).groupby("family", sort=False):
        moved = group[group["kind"] == "lambda"].groupby("lambda_")["distance"].max()
        seed = group.loc[group["kind"] == "seed", "distance"].max()  # NaN where there is one seed
        row = {
            f"lambda = {lambda_:g} against 1": words.short(far) for lambda_, far in moved.items()
        }
        row["One seed against another"] = words.short(seed)
        row["Lambda, as a share of that"] = words.percent_short(moved.max() / seed)
        rows.append({"Optimizer": family} | row)
    return pd.DataFrame(rows)


def figure(epochs: pd.DataFrame, metric: str = "val_cross_entropy") -> Figure:
    """Cross-entropy over epochs for several lambdas, a panel an optimizer, a line a seed.

    Args:
        epochs: As from :func:`companion.records.details`, with ``family``.
        metric: A column, unscaled by lambda.
    """
    if epochs.empty:
        return style.empty()
    families = epochs.groupby("family", sort=False)
    lines = (len(families) + 2) // 2  # two panels a line, and one for the legend
    figure, axes = style.panels(lines, 2, 2.0 * lines + 0.4, sharex=True)
    for ax in axes.flat[len(families) :]:
        ax.set_axis_off()
    layers = dict(zip(sorted(epochs["lambda_"].unique()), LAYERS, strict=False))
    for ax, (family, mine) in zip(axes.flat, families, strict=False):
        for lambda_, layer in layers.items():
            for _, track in mine[mine["lambda_"] == lambda_].groupby("seed"):
                ax.plot(track["epoch"], track[metric], **layer)
        ax.set_title(words.capital(family).replace(", ", ",\n", 1))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.xaxis.set_tick_params(labelbottom=True)
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.set_xlabel("Epoch")
    for ax in axes[:, 0]:
        ax.set_ylabel(words.capital(tables.METRIC_NAMES[metric]).replace(" ", "\n"))
    lines = {f"lambda = {lambda_:g}": layer for lambda_, layer in layers.items()}
    style.legend(axes.flat[len(families)], lines, "center", fontsize=11)
    return figure
