"""Why the published search could not tell its settings apart: how the loss works, measured.

Five parts, each a section of the notebook on the published numbers: the scale ``lambda`` under
several optimizers, the noise of sampling, the scale of the features, the released grid search,
and a network that sees no edges. Functions take rows of a ledger or tensors; none of them trains
for longer than a few steps.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from companion import tables, verdicts
from companion.probes.bits import unpack
from companion.published import FEATURE_SAMPLING_RATIO
from varreg.features import FeatureTap
from varreg.lab.augment import shuffle_blocks
from varreg.lab.datasets import phantom
from varreg.lab.models import PaperCNN, SmallCNN, build
from varreg.lab.runs import RunSpec
from varreg.lab.statistics import Interval, PairedDifference, mean_interval, paired_difference
from varreg.loss import VariancePenalizedLoss, feature_variance

__all__ = [
    "IN_PLACE",
    "RULES",
    "SHUFFLED",
    "best_at_random",
    "block_order",
    "by_blocks",
    "changed_predictions",
    "choice_shares",
    "choice_summary",
    "choice_table",
    "details",
    "edges",
    "edges_summary",
    "edges_table",
    "every_draw",
    "factor_text",
    "few_steps",
    "first_best",
    "halves",
    "halves_table",
    "lambda_distances",
    "lambda_summary",
    "lambda_table",
    "permute_head",
    "phantom_images",
    "rescale",
    "rescaling_table",
    "sampling_summary",
    "sampling_table",
    "small_searches",
    "steps_table",
    "variance_parts",
    "variance_summary",
    "variance_table",
    "with_family",
    "with_theory",
]

NOTHING = "No run is recorded yet."
TRAJECTORIES = ["train_cross_entropy", "val_cross_entropy"]

#: Optimizers of the live demonstration. The epsilon of the first, third and fourth is too small
#: to be seen beside any gradient.
OPTIMIZERS = {
    "Adam": partial(torch.optim.Adam, lr=1e-3, eps=1e-30),
    "Adam, large epsilon": partial(torch.optim.Adam, lr=1e-3, eps=1e-3),
    "Adam, L2 penalty on the weights": partial(
        torch.optim.Adam, lr=1e-3, eps=1e-30, weight_decay=1e-2
    ),
    "AdamW, decoupled weight decay": partial(
        torch.optim.AdamW, lr=1e-3, eps=1e-30, weight_decay=1e-2
    ),
    "SGD": partial(torch.optim.SGD, lr=1e-2),
}

#: Ways to choose among the combinations of the search.
RULES = {
    "small": "accuracy on 16,\nfirst of the best",
    "small_random": "accuracy on 16,\nties at random",
    "accuracy": "accuracy\non all",
    "cross_entropy": "cross-entropy\non all",
}

IN_PLACE, SHUFFLED = "in place", "shuffled"


def details(runs: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a probe, or the epochs of a study, with the settings of the run they belong to.

    Args:
        runs: Rows of a ledger.
        rows: Its ``curves()``: detail rows with the ``key`` of their run.

    Example:
        >>> runs = pd.DataFrame({"key": ["a"], "seed": [3]})
        >>> details(runs, pd.DataFrame({"key": ["a", "a"], "ratio": [0.2, 1.0]}))["seed"].tolist()
        [3, 3]
    """
    if runs.empty or rows.empty:
        return pd.DataFrame()
    settings = ["key", *(name for name in runs.columns if name not in rows.columns)]
    return rows.merge(runs[settings], on="key")


def phantom_images(count: int = 32, size: int = 28) -> tuple[Tensor, Tensor]:
    """Phantoms in float64 between 0 and 1, and their labels.

    Example:
        >>> images, labels = phantom_images(4)
        >>> images.shape, images.dtype, labels.sum().item()
        (torch.Size([4, 1, 28, 28]), torch.float64, 2)
    """
    drawing = phantom.draw(count, size=size)
    return torch.from_numpy(drawing.images).double() / 255, torch.from_numpy(drawing.labels)


# lambda


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
        reference = few_steps(name, 1.0, steps=steps)
        same = {
            f"lambda = {lambda_:g}": torch.equal(few_steps(name, lambda_, steps=steps), reference)
            for lambda_ in lambdas
        }
        rows.append(
            {"Optimizer": name}
            | {column: "the same" if equal else "differs" for column, equal in same.items()}
        )
    return pd.DataFrame(rows)


def with_family(runs: pd.DataFrame, families: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    """Name the family of optimizer settings that each run belongs to, in the column ``family``.

    Args:
        runs: Rows of the study ``inert_lambda``.
        families: Name -> settings; a setting not named has the default of a
            :class:`~varreg.lab.runs.RunSpec`. Runs of no family are left out.

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


def lambda_distances(epochs: pd.DataFrame, reference: float = 1.0) -> pd.DataFrame:
    """How far trajectories with another lambda are from those with ``lambda = reference``.

    The distance of two trajectories is the largest difference of their unscaled cross-entropy, in
    training or validation, at any epoch that both have.

    Args:
        epochs: Epochs as from :func:`details`, with ``family``.
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
            rows.append(
                {
                    "family": family,
                    "kind": "seed" if same_lambda else "lambda",
                    "lambda_": lambda_,
                    "seed": seed,
                    "distance": float((track - other).abs().max(axis=None)),
                }
            )
    return pd.DataFrame(rows, columns=["family", "kind", "lambda_", "seed", "distance"])


def lambda_table(epochs: pd.DataFrame) -> pd.DataFrame:
    """:func:`lambda_distances` as printed: the largest over seeds."""
    found = lambda_distances(epochs)
    rows = []
    for family, group in found.groupby("family", sort=False):
        row = {"Optimizer": family}
        for lambda_, mine in group[group["kind"] == "lambda"].groupby("lambda_"):
            row[f"lambda = {lambda_:g} against 1"] = _short(mine["distance"].max())
        between = group.loc[group["kind"] == "seed", "distance"]
        row["One seed against another"] = _short(between.max()) if len(between) else "\u2013"
        rows.append(row)
    return pd.DataFrame(rows)


def lambda_summary(epochs: pd.DataFrame) -> str:
    """What :func:`lambda_distances` says, as a Markdown list."""
    found = lambda_distances(epochs)
    lines = []
    for family, group in found.groupby("family", sort=False):
        largest = group.groupby("kind")["distance"].max()
        if {"lambda", "seed"} <= set(largest.index):
            share = largest["lambda"] / largest["seed"]
            lines.append(
                f"- **{family}**: lambda moves the cross-entropy by at most "
                f"{_short(largest['lambda'])}, {_percent(share)} of what another seed does."
            )
    return "\n".join(lines) or NOTHING


# sampling


def every_draw(features: Tensor, drawn: int) -> Tensor:
    """The penalty for each possible draw of ``drawn`` features, without replacement.

    Args:
        features: ``(N, D)`` with few features: there are "D choose ``drawn``" draws.
        drawn: Features a draw.

    Example:
        >>> features = torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 4.0]])  # variances 0, 1, 4
        >>> every_draw(features, 2)
        tensor([0.5000, 2.0000, 2.5000])
    """
    subsets = itertools.combinations(range(features.shape[1]), drawn)
    return torch.stack([feature_variance(features[:, list(subset)]) for subset in subsets])


def with_theory(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the noise that sampling without replacement must have, in the column ``predicted``.

    Drawing ``m`` of ``d`` gradients leaves a variance of ``(1/m - 1/d)`` times a constant of the
    model: one number, set so that theory and measurement agree on the mean of their logarithms.

    Args:
        rows: Details of the probe ``sampling``.

    Returns:
        The rows that sample: a ratio between 0 and 1.

    Example:
        >>> rows = pd.DataFrame({"key": "a", "ratio": [0.2, 0.5, 1.0], "features": 100,
        ...                      "drawn": [20, 50, 100], "gradient_noise": [0.4, 0.1, 0.0]})
        >>> with_theory(rows)["predicted"].round(3).tolist()
        [0.4, 0.1]
    """
    if rows.empty:
        return rows
    kept = rows[(rows["ratio"] > 0) & (rows["drawn"] < rows["features"])]
    factor = 1 / kept["drawn"] - 1 / kept["features"]
    log_constant = np.log(kept["gradient_noise"] / factor).groupby(kept["key"]).transform("mean")
    return kept.assign(predicted=factor * np.exp(log_constant))


def sampling_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The noise that the probe ``sampling`` found, as printed, mean over seeds.

    Times of a step are those of the benchmark ``overhead``, see
    :func:`companion.cost.overhead_table`.

    Args:
        rows: Details of the probe, as from :func:`details`.
    """
    if rows.empty:
        return pd.DataFrame()
    theory = with_theory(rows).groupby(["model", "ratio"])["predicted"].mean()
    printed = []
    for (model, ratio), group in rows[rows["ratio"] > 0].groupby(["model", "ratio"], sort=False):
        mean = group.mean(numeric_only=True)
        printed.append(
            {
                "Network": tables.MODEL_NAMES[model],
                "Ratio": f"{ratio:g}",
                "Features drawn": f"{mean['drawn']:.0f} of {mean['features']:.0f}",
                "Noise, at random": _short(mean["gradient_noise"]),
                "In theory": _short(theory.get((model, ratio), 0.0)),
                "Noise, as a comb": _short(mean["comb_noise"]),
                "Noise of the mini-batch": _short(mean["batch_noise"]),
                "Bias, at random / comb": f"{mean['bias']:.1f} / {mean['comb_bias']:.1f}"
                if ratio < 1
                else "\u2013",
            }
        )
    return pd.DataFrame(printed)


def sampling_summary(rows: pd.DataFrame, ratio: float = FEATURE_SAMPLING_RATIO) -> str:
    """What the probe ``sampling`` says about one ratio, as a Markdown list."""
    lines = []
    for model, group in [] if rows.empty else rows.groupby("model", sort=False):
        theory = with_theory(group)
        off = (theory["gradient_noise"] / theory["predicted"] - 1).abs().max()
        mean = group.groupby("ratio").mean(numeric_only=True)
        one = mean.loc[ratio]
        lines.append(
            f"- **{_capital(tables.MODEL_NAMES[model])}**: at the ratio of {ratio:g} the noise of "
            f"sampling at random is {_percent(one['gradient_noise'])} of the squared gradient of "
            f"the penalty, as a comb {_percent(one['comb_noise'])}; the choice of the mini-batch "
            f"alone makes {_percent(one['batch_noise'])} of that of the cross-entropy. Theory and "
            f"measurement are never more than {100 * off:.0f} % apart. The mean of the sampled "
            f"gradients is {theory['bias'].mean():.1f} of its own standard errors from the "
            f"gradient with all features, as a comb {theory['comb_bias'].mean():.1f} (about 1 is "
            f"what chance gives)."
        )
    return "\n".join(lines) or NOTHING


# scale


def rescale(model: PaperCNN | SmallCNN, factor: float) -> PaperCNN | SmallCNN:
    """The same function with other weights: features times ``factor``, head divided by it.

    ReLU and max pooling pass a positive factor on, so that it is enough to scale the last
    convolution.

    Args:
        model: The network; it stays as it is.
        factor: Positive.

    Raises:
        ValueError: If the factor is not positive.

    Example:
        >>> model = PaperCNN(in_channels=1, size=8, n_outputs=1)
        >>> twice = rescale(model, 2.0)
        >>> images = torch.rand(3, 1, 8, 8)
        >>> torch.equal(twice.features(images), 2 * model.features(images))
        True
        >>> torch.equal(twice(images), model(images))
        True
    """
    if not 0 < factor < math.inf:
        raise ValueError(f"factor is {factor}; it must be positive and finite")
    scaled = copy.deepcopy(model)
    last = [layer for layer in scaled.features if isinstance(layer, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight.mul_(factor)
        last.bias.mul_(factor)
        scaled.head.weight.div_(factor)
    return scaled


def rescaling_table(
    model: PaperCNN | SmallCNN, images: Tensor, factors: Sequence[float]
) -> pd.DataFrame:
    """What :func:`rescale` does to logits and penalty.

    Returns:
        Columns ``factor``, ``logits`` (largest difference to those of ``model``) and ``penalty``
        (divided by that of ``model``).
    """
    rows = []
    with torch.no_grad():
        logits, penalty = model(images), feature_variance(model.features(images))
        for factor in factors:
            scaled = rescale(model, factor)
            rows.append(
                {
                    "factor": factor,
                    "logits": float((scaled(images) - logits).abs().max()),
                    "penalty": float(feature_variance(scaled.features(images)) / penalty),
                }
            )
    return pd.DataFrame(rows)


def variance_parts(rows: pd.DataFrame) -> pd.DataFrame:
    """Part the effect of the penalty on the feature variance into scale and shape.

    The variance is the mean square of the features times the relative variance. So the factor by
    which a penalty changes it, against the same seed without one, is a factor of scale (which the
    head can undo) times a factor of shape (which it cannot).

    Args:
        rows: Details of the probe ``norms``; the last epoch counts.

    Returns:
        Columns ``model, variance_weight`` and, as :class:`~varreg.lab.statistics.Interval` of the
        natural logarithm over seeds, ``variance``, ``scale``, ``shape`` and ``head`` (the squared
        norm of the head's weights).
    """
    columns = ["model", "variance_weight", "variance", "scale", "shape", "head"]
    if rows.empty:
        return pd.DataFrame(columns=columns)
    last = rows[rows["epoch"] == rows["epoch"].max()]
    # Features that have collapsed to one value have no logarithm: their run is left out.
    last = last[last["feature_variance"] > 0]
    logs = last[["model", "variance_weight", "seed"]].assign(
        variance=np.log(last["feature_variance"]),
        scale=np.log(last["feature_variance"] / last["relative_variance"]),
        shape=np.log(last["relative_variance"]),
        head=2 * np.log(last["head_norm"]),
    )
    found = []
    for (model, weight), group in logs.groupby(["model", "variance_weight"]):
        free = logs[(logs["model"] == model) & (logs["variance_weight"] == 0)]
        change = (
            group.set_index("seed")[columns[2:]] - free.set_index("seed")[columns[2:]]
        ).dropna()
        if weight > 0 and len(change):
            found.append(
                {"model": model, "variance_weight": weight}
                | {name: mean_interval(change[name]) for name in columns[2:]}
            )
    return pd.DataFrame(found, columns=columns)


def factor_text(log: Interval) -> str:
    """A factor with its interval as printed, from those of its logarithm.

    Example:
        >>> factor_text(Interval(math.log(0.5), math.log(0.4), math.log(0.6), 5))
        '0.50 [0.40, 0.60]'
    """
    mean, low, high = (_times(math.exp(value)) for value in (log.mean, log.low, log.high))
    return f"{mean} [{low}, {high}]" if log.n > 1 else mean


def variance_table(rows: pd.DataFrame) -> pd.DataFrame:
    """:func:`variance_parts` as printed: factors with 95 % intervals."""
    parts = variance_parts(rows)
    return pd.DataFrame(
        {
            "Network": [tables.MODEL_NAMES[name] for name in parts["model"]],
            "Weight": [f"{weight:g}" for weight in parts["variance_weight"]],
            "Variance": [factor_text(each) for each in parts["variance"]],
            "= scale": [factor_text(each) for each in parts["scale"]],
            "\u00d7 shape": [factor_text(each) for each in parts["shape"]],
            "Squared norm of the head": [factor_text(each) for each in parts["head"]],
            "Share of the scale": [_share(row) for row in parts.itertuples()],
        }
    )


def variance_summary(rows: pd.DataFrame) -> str:
    """How much of the fall of the variance is scale, as a Markdown list."""
    lines = []
    for row in variance_parts(rows).itertuples():
        name = f"{_capital(tables.MODEL_NAMES[row.model])}, weight {row.variance_weight:g}"
        if not row.variance.high < 0:
            lines.append(f"- **{name}**: no fall of the variance that is clear over the seeds.")
            continue
        lines.append(
            f"- **{name}**: the variance is {_turn(row.variance)} than without the penalty. "
            f"Features that are {_turn(row.scale)} in mean square account for {_share(row)} of "
            f"that (counted in logarithms), and the relative variance {_moved(row.shape)}. The "
            f"head's squared norm {_moved(row.head)}."
        )
    return "\n".join(lines) or NOTHING


# the search


def small_searches(
    right: np.ndarray, labels: np.ndarray, *, draws: int, per_class: int = 8, seed: int = 0
) -> np.ndarray:
    """Searches that see only a few validation images, drawn at random from all of them.

    Args:
        right: ``(K, n)``: whether combination ``k`` has image ``i`` right.
        labels: ``(n,)``, 0 or 1.
        draws: Number of searches.
        per_class: Images of each class a search sees; the released search had 8.
        seed: Of the draw.

    Returns:
        ``(draws, K)``: images that each combination has right.

    Example:
        >>> right = np.array([[True] * 40, [False] * 40])
        >>> small_searches(right, np.arange(40) % 2, draws=2).tolist()
        [[16, 0], [16, 0]]
    """
    random = np.random.default_rng(seed)
    hits = np.zeros((draws, len(right)), dtype=int)
    for label in (0, 1):
        members = np.flatnonzero(labels == label)
        order = random.random((draws, len(members))).argsort(axis=1)[:, :per_class]
        hits += right[:, members[order]].sum(axis=2).T
    return hits


def first_best(scores: np.ndarray) -> np.ndarray:
    """Share of searches in which each combination wins when a later one must be strictly better.

    Example:
        >>> first_best(np.array([[15, 15, 14], [13, 15, 15]])).tolist()
        [0.5, 0.5, 0.0]
    """
    return np.bincount(scores.argmax(axis=1), minlength=scores.shape[1]) / len(scores)


def best_at_random(scores: np.ndarray) -> np.ndarray:
    """Share of searches in which each combination wins when a tie is settled by lot.

    Example:
        >>> best_at_random(np.array([[15, 15, 14], [13, 15, 14]])).tolist()
        [0.25, 0.75, 0.0]
    """
    return _shared(scores).mean(axis=0)


def choice_shares(rows: pd.DataFrame, draws: int = 2000) -> pd.DataFrame:
    """How often each rule of :data:`RULES` chooses each combination of the search.

    Args:
        rows: Details of the probe ``carried``, as from :func:`details`.
        draws: Random sets of 16 images for each mode and seed.

    Returns:
        A row a mode, seed, rule and combination: the columns of the setting, ``place``, ``share``
        (sums to 1 over the combinations), ``test_cross_entropy`` and ``tied`` (combinations that
        share the first place, mean over searches) and ``ties`` (share of searches that end in a
        tie), both the same for all combinations.
    """
    parts = []
    for (mode, seed), group in [] if rows.empty else rows.groupby(["mode", "seed"], sort=False):
        group = group.sort_values("place")
        right, labels = _bits(group)
        hits = small_searches(right, labels, draws=draws, seed=int(seed))
        scores = {
            "small": (hits, first_best),
            "small_random": (hits, best_at_random),
            "accuracy": (right.sum(axis=1)[None], first_best),
            "cross_entropy": (-group["val_cross_entropy"].to_numpy()[None], first_best),
        }
        for rule, (score, choose) in scores.items():
            winners = _shared(score) > 0
            parts.append(
                group[["place", *tables.SETTING, "test_cross_entropy"]].assign(
                    mode=mode,
                    seed=seed,
                    rule=rule,
                    share=choose(score),
                    tied=winners.sum(axis=1).mean(),
                    ties=(winners.sum(axis=1) > 1).mean(),
                )
            )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def choice_table(shares: pd.DataFrame) -> pd.DataFrame:
    """:func:`choice_shares` as printed, a row a mode and rule.

    *Against a blind choice* is the expected test cross-entropy of the chosen combination minus
    the mean of all, over seeds.
    """
    printed = []
    for (mode, rule), group in [] if shares.empty else shares.groupby(["mode", "rule"], sort=False):
        picked = group.groupby(["place", *tables.SETTING])["share"].mean()
        place, *setting = picked.idxmax()
        expected = (group["share"] * group["test_cross_entropy"]).groupby(group["seed"]).sum()
        blind = group.groupby("seed")["test_cross_entropy"].mean()
        gain = paired_difference(expected, blind)
        printed.append(
            {
                "Weights": mode,
                "Rule": RULES[rule].replace("\n", " "),
                "Ends in a tie": f"{100 * group['ties'].mean():.0f} %",
                "Share the first place": f"{group['tied'].mean():.1f}",
                "Chosen most often": f"{tables.setting_text(*setting)} (place {place})",
                "How often": f"{100 * picked.max():.0f} %",
                "Test cross-entropy, against a blind choice": _interval(gain, signed=True),
            }
        )
    return pd.DataFrame(printed)


def choice_summary(shares: pd.DataFrame) -> str:
    """What :func:`choice_shares` says about the first combination, as a Markdown list."""
    lines = []
    for mode, group in [] if shares.empty else shares.groupby("mode", sort=False):
        first = group[group["place"] == 1].groupby("rule")["share"].mean()
        small = group[group["rule"] == "small"]
        count = small["place"].nunique()
        lines.append(
            f"- With **{mode}** weights, {100 * small['ties'].mean():.0f} % of the searches on 16 "
            f"images end in a tie, with {small['tied'].mean():.1f} combinations in the first place "
            f"on average. The rule that keeps the first of them chooses the combination tried "
            f"first in {100 * first['small']:.0f} % of the searches; a lot among the tied would "
            f"in {100 * first['small_random']:.0f} %, and a blind choice in {100 / count:.0f} %."
        )
    return "\n".join(lines) or NOTHING


def halves(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean over the later half of the search minus mean over the earlier half, a row a seed.

    Args:
        rows: Details of the probe ``carried``.
        metric: A column, such as ``"val_cross_entropy"``.

    Returns:
        Index ``seed``, a column a mode.

    Example:
        >>> rows = pd.DataFrame({"mode": "fresh", "seed": 0, "place": [1, 2, 3, 4],
        ...                      "val_accuracy": [0.5, 0.7, 0.8, 0.8]})
        >>> halves(rows, "val_accuracy")["fresh"].round(3).tolist()
        [0.2]
    """
    later = rows["place"] > rows["place"].max() / 2
    means = rows.groupby(["seed", "mode", later.rename("later")])[metric].mean().unstack("later")
    return (means[True] - means[False]).unstack("mode")


def halves_table(rows: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """:func:`halves` as printed, with the difference that is due to carrying over."""
    printed = []
    for metric in [] if rows.empty else metrics:
        change = halves(rows, metric).reindex(columns=["carried", "fresh"]).dropna()
        if change.empty:
            continue
        between = paired_difference(change["carried"], change["fresh"])
        printed.append(
            {
                "Later half minus earlier half": _capital(tables.METRIC_NAMES[metric]),
                "Carried over": _interval(mean_interval(change["carried"]), signed=True),
                "Fresh": _interval(mean_interval(change["fresh"]), signed=True),
                "Carried minus fresh": _interval(between, signed=True),
            }
        )
    return pd.DataFrame(printed)


# edges


def block_order(size: int, block: int = 4, seed: int = 0) -> Tensor:
    """Where the blocks come from: entry ``k`` is the place that block ``k`` had before shuffling.

    Args:
        size: Height and width of the image.
        block: As in :func:`varreg.lab.augment.shuffle_blocks`.
        seed: The same.

    Example:
        >>> sorted(block_order(8).tolist())
        [0, 1, 2, 3]
    """
    across = size // block
    places = torch.arange(across**2).view(1, 1, across, across)
    marked = places.repeat_interleave(block, 2).repeat_interleave(block, 3)
    return shuffle_blocks(marked, block, seed)[0, 0, ::block, ::block].flatten()


def permute_head(model: PaperCNN | SmallCNN, order: Tensor) -> PaperCNN | SmallCNN:
    """A copy whose head reads each position where ``order`` has moved it.

    Args:
        model: A network with ``P`` positions a channel; it stays as it is.
        order: ``(P,)``, as from :func:`block_order`.

    Example:
        >>> model = PaperCNN(in_channels=1, size=8, n_outputs=1).double()
        >>> images = torch.rand(2, 1, 8, 8, dtype=torch.float64)
        >>> moved = permute_head(model, block_order(8))(shuffle_blocks(images))
        >>> torch.allclose(moved, model(images))
        True
    """
    moved = copy.deepcopy(model)
    weight = model.head.weight.detach().unflatten(1, (-1, len(order)))
    with torch.no_grad():
        moved.head.weight.copy_(weight[..., order].flatten(1))
    return moved


def changed_predictions(model: PaperCNN | SmallCNN, images: Tensor) -> int:
    """Number of binary predictions that change when blocks and head are shuffled together.

    Args:
        model: A network with one output.
        images: What it is fed, ``(N, C, H, W)``, of the same type as its weights.

    Example:
        >>> model = PaperCNN(in_channels=1, size=28, n_outputs=1).double()
        >>> changed_predictions(model, phantom_images()[0])
        0
    """
    moved = permute_head(model, block_order(images.shape[-1]))
    with torch.no_grad():
        before, after = model(images) > 0, moved(shuffle_blocks(images)) > 0
    return int((before != after).sum())


def by_blocks(runs: pd.DataFrame) -> pd.DataFrame:
    """Name the runs of the study ``edges`` by what was done to their images.

    Returns:
        The rows with :data:`IN_PLACE` or :data:`SHUFFLED` in the column ``method``.

    Example:
        >>> by_blocks(pd.DataFrame({"shuffle_blocks": [None, True]}))["method"].tolist()
        ['in place', 'shuffled']
    """
    if runs.empty:
        return runs
    shuffled = [str(value) == "True" for value in runs["shuffle_blocks"]]
    return runs.assign(method=np.where(shuffled, SHUFFLED, IN_PLACE))


def edges(runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """What shuffling the blocks changes, paired over seeds.

    Args:
        runs: Rows of the study ``edges``, as from :func:`by_blocks`.
        metrics: Columns, such as ``"test_accuracy"``.

    Returns:
        Columns ``model, metric, change`` (a :class:`~varreg.lab.statistics.PairedDifference`,
        shuffled minus in place) and ``verdict``: ``"worse"`` or ``"better"`` where the interval
        lies on one side of zero, ``"equal"`` where it holds zero and lies within
        :data:`companion.verdicts.MARGIN` of it, ``"open"`` otherwise.
    """
    rows = []
    for model, group in [] if runs.empty else runs.groupby("model", sort=False):
        for metric in metrics:
            change = tables.difference(group, metric, SHUFFLED, IN_PLACE)
            if change is not None:
                rows.append(
                    {
                        "model": model,
                        "metric": metric,
                        "change": change,
                        "verdict": _edge_verdict(change, tables.better(metric)),
                    }
                )
    return pd.DataFrame(rows, columns=["model", "metric", "change", "verdict"])


def edges_table(runs: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """:func:`edges` as printed, beside the levels."""
    printed = []
    for row in edges(runs, metrics).itertuples():
        mine = runs[runs["model"] == row.model]
        levels = {
            name: _interval(
                mean_interval(
                    mine.loc[mine["method"] == name, row.metric],
                    within=tables.possible(row.metric),
                )
            )
            for name in (IN_PLACE, SHUFFLED)
        }
        printed.append(
            {
                "Network": tables.MODEL_NAMES[row.model],
                "Metric": tables.METRIC_NAMES[row.metric],
                "Blocks in place": levels[IN_PLACE],
                "Blocks shuffled": levels[SHUFFLED],
                "Change": _interval(row.change, signed=True),
                "Pairs": row.change.n,
                "Shuffled is": row.verdict,
            }
        )
    return pd.DataFrame(printed)


def edges_summary(runs: pd.DataFrame, metrics: Sequence[str]) -> str:
    """What :func:`edges` says, as a Markdown list."""
    lines = []
    for model, group in edges(runs, metrics).groupby("model", sort=False):
        said = [
            f"{verdicts.phrase(row.change, tables.METRIC_NAMES[row.metric])}: {row.verdict}"
            for row in group.itertuples()
        ]
        name = _capital(tables.MODEL_NAMES[model])
        lines.append(f"- **{name}**: shuffling {'; it '.join(said)}.")
    return "\n".join(lines) or NOTHING


def _edge_verdict(change: PairedDifference, direction: int) -> str:
    if change.n < 2:
        return "open"
    small = change.low > -verdicts.MARGIN and change.high < verdicts.MARGIN
    worst, best = sorted((direction * change.low, direction * change.high))
    if worst > 0 or best < 0:
        word = "better" if worst > 0 else "worse"
        return f"{word}, by less than {verdicts.MARGIN}" if small else word
    return "equal" if small else "open"


def _bits(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """What each combination has right, and the labels."""
    count = int(rows["val_images"].iloc[0])
    right = np.array([unpack(str(text), count) for text in rows["val_right"]])
    return right, unpack(str(rows["val_labels"].iloc[0]), count)


def _shared(scores: np.ndarray) -> np.ndarray:
    """The first place of each search, shared equally among the tied."""
    top = scores == scores.max(axis=1, keepdims=True)
    return top / top.sum(axis=1, keepdims=True)


def _interval(interval: Interval, *, signed: bool = False) -> str:
    return tables.interval_text(interval.mean, interval.low, interval.high, signed=signed)


def _times(value: float) -> str:
    return f"{value:.2f}" if 0.1 <= value < 10 else _short(value)


def _share(row: tuple) -> str:
    """Share of the scale in a fall of the variance that is clear of zero."""
    if not row.variance.high < 0:
        return "\u2013"
    return f"{100 * row.scale.mean / row.variance.mean:.0f} %"


def _turn(log: Interval) -> str:
    return f"{_short(math.exp(abs(log.mean)))} times {'larger' if log.mean > 0 else 'smaller'}"


def _moved(log: Interval) -> str:
    if log.low <= 0 <= log.high or log.n < 2:
        return "does not measurably change"
    return f"is {_turn(log)}"


def _short(value: float) -> str:
    """Two digits, without a power of ten for a large number."""
    return f"{float(f'{value:.2g}'):,.12g}"


def _percent(share: float) -> str:
    """Two digits, or whole percent where that is more."""
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
