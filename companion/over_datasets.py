"""The comparison over data sets: ranks, what explains the differences, and what one default does.

All of it is computed over whatever is recorded. A setting is a network, with or without
augmentation; its data sets stand side by side from two on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import words
from companion.probes.labels import PARTS
from companion.rivals import (
    DATA,
    MEASURES,
    NETWORKS,
    PRIMARY,
    Compared,
    forest,
    named,
    said_strength,
    title,
    with_augmentation,
    with_predictions,
)
from companion.studies import one_default, volumes
from companion.studies.rivals_tuning import MAIN, reference
from companion.tables import with_gaps
from varreg.lab.ledger import Ledger
from varreg.lab.statistics import holm, ranking, variance_shares

#: Measures that the text may name.
TOLD = (PRIMARY, "test_auroc", "test_accuracy", "test_balanced_accuracy")
#: On how many data sets a default must beat no penalty, and add to augmentation, by the plan.
AIM = (3, 2)


def settings(blocks: Sequence[Compared]) -> dict[str, list[Compared]]:
    """Blocks by network and augmentation, as printed; those of a single data set are left out."""
    found: dict[str, list[Compared]] = {}
    for each in blocks:
        name = "small network" + NETWORKS[each.block.model] + ", augmented" * each.block.augment
        found.setdefault(name, []).append(each)
    return {name: mine for name, mine in found.items() if len(mine) > 1}


def means(blocks: Sequence[Compared], measure: str = PRIMARY) -> pd.DataFrame:
    """Mean of a measure over the seeds: a row a data set, a column a method that all have.

    The reference of a block is a method, too, and what was turned off has its mean. Methods that
    are compared with another reference are left out.
    """
    found = {each.block.dataset: _wide(each, measure).mean() for each in blocks}
    return pd.DataFrame(found).T.dropna(axis=1)


def _own(each: Compared) -> str:
    """The reference of a block."""
    return reference(each.block, "baseline")


def _wide(each: Compared, measure: str) -> pd.DataFrame:
    """A row a seed, a column a method: the reference of the block and what is compared with it."""
    wide, own = each.runs.pivot(index="seed", columns="method", values=measure), _own(each)
    off = {name: wide[own] for name, strength in each.strengths.items() if not strength}
    wide = wide.assign(**{name: values for name, values in off.items() if name not in wide})
    return wide[[name for name in wide if reference(each.block, name) == own]]


def ranks_table(blocks: Sequence[Compared]) -> pd.DataFrame:
    """Mean ranks over the data sets as printed, a column a setting; 1 is the lowest cross-entropy.

    Below them stand Nemenyi's critical difference and the p of Friedman's test.
    """
    columns: dict[str, dict[str, str]] = {}
    for name, mine in settings(blocks).items():
        table = means(mine)
        found = ranking(table.to_numpy())
        order = np.argsort(found.ranks, kind="stable")
        heading = f"{words.capital(name)}, {len(mine)} data sets"
        columns[heading] = {title(table.columns[k]): f"{found.ranks[k]:.1f}" for k in order}
        columns[heading] |= {
            "Critical difference": f"{found.critical_difference:.1f}",
            "p, all alike": words.p_value(found.p),
        }
    last = ["Critical difference", "p, all alike"]
    rows = dict.fromkeys(name for said in columns.values() for name in said if name not in last)
    order = [*rows, *(last if columns else [])]
    printed = {name: [said.get(row, words.DASH) for row in order] for name, said in columns.items()}
    return pd.DataFrame({"Method": order} | printed)


def blocks_table(blocks: Sequence[Compared]) -> pd.DataFrame:
    """A row a block as printed: how many methods stand, and the largest gain."""
    rows = []
    for each in blocks:
        first, images = each.of(PRIMARY), each.over_images
        stands, seen = first[first["p_holm"] < 0.05], images[images["p_holm"] < 0.05]
        best = first[first["reference"] == _own(each)].index[0]
        rows.append(
            {
                "Block": each.name,
                "Methods": len(first),
                "Lower": int((stands["mean"] < 0).sum()),
                "Higher": int((stands["mean"] > 0).sum()),
                "Lower, over images too": int((seen["mean"] < 0).sum()),
                "Largest gain": title(best),
            }
        )
    return pd.DataFrame(rows)


def main_table(
    blocks: Sequence[Compared], methods: Sequence[str] = tuple(one_default.STRENGTHS)
) -> pd.DataFrame:
    """A row a block as printed: what some of the methods change in the primary outcome."""
    rows = []
    for each in blocks:
        texts = each.of(PRIMARY)["text"].reindex(methods).fillna(words.DASH)
        rows.append({"Block": each.name} | {title(name): text for name, text in texts.items()})
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- one default


def recorded_defaults(results: Path | None = None) -> list[Compared]:
    """Blocks of ``one_default`` of which every run is recorded: one strength for all data sets.

    Args:
        results: Folder of the ledgers; default: the recorded results.
    """
    runs = Ledger(one_default.STUDY, results).runs()
    if runs.empty:
        return []
    runs, found = runs.set_index("key", drop=False), []
    for block in one_default.BLOCKS:
        keys = [spec.key for spec in one_default.block_specs(block)]
        if set(keys) <= set(runs.index):
            mine = with_gaps(runs.loc[keys]).reset_index(drop=True)
            found.append(Compared(block, mine, one_default.STRENGTHS))
    return [with_augmentation(each, found) for each in found]


def recorded_volumes(results: Path | None = None) -> list[Compared]:
    """The block of ``volumes``, at the strengths of other data sets, once every run is recorded.

    Args:
        results: Folder of the ledgers; default: the recorded results.
    """
    ledger = Ledger(volumes.STUDY, results)
    keys, runs = [spec.key for spec in volumes.specs()], ledger.runs()
    if runs.empty or not set(keys) <= set(runs["key"]):
        return []
    mine = Compared(volumes.BLOCK, runs.set_index("key", drop=False).loc[keys], volumes.STRENGTHS)
    return [with_predictions(mine, ledger.all_predictions(keys, PARTS), results)]


def holds(found: Compared) -> dict[str, bool]:
    """By method: does it lower cross-entropy and raise AUROC, each after Holm's correction?"""
    return {row["method"]: row["lowers"] and row["raises"] for row in _stands(found.differences)}


def outcomes(blocks: Sequence[Compared], defaults: Sequence[Compared] = ()) -> pd.DataFrame:
    """What stands after Holm's correction, for each data set and method, with the small network.

    Args:
        blocks: Of the comparison, where validation chose on each data set.
        defaults: As from :func:`recorded_defaults`, where it chose one strength for all.

    Returns:
        A row each: ``one`` (whether the strength is one for all), ``dataset, augmented, method,
        strength, lowers`` (cross-entropy) and ``raises`` (AUROC). Holm's correction is over the
        methods, for each of the two measures.
    """
    rows = []
    for one, mine in ((False, blocks), (True, defaults)):
        for each in mine:
            if each.block.model != "small_cnn":
                continue
            head = {"one": one, "dataset": each.block.dataset, "augmented": each.block.augment}
            rows += [
                head | row
                for row in _stands(each.differences)
                if reference(each.block, row["method"]) == _own(each)
            ]
    return pd.DataFrame(rows)


def _stands(found: pd.DataFrame) -> list[dict[str, object]]:
    """By method: does it stand after Holm's correction, on the side that is better?"""
    sides = {"lowers": (PRIMARY, -1), "raises": ("test_auroc", 1)}
    first = found[found["measure"] == PRIMARY].set_index("method")
    table = first.reindex(columns=["strength"])
    for name, (measure, side) in sides.items():
        mine = found[found["measure"] == measure].set_index("method")
        stands = (np.array(holm(mine["p"])) < 0.05) & (side * mine["mean"] > 0)
        table[name] = stands.reindex(table.index, fill_value=False)
    return table.reset_index().to_dict("records")


def counts(found: pd.DataFrame) -> pd.DataFrame:
    """On how many data sets a method beats no penalty, and adds to augmentation.

    Args:
        found: As from :func:`outcomes`.

    Returns:
        A row a method and ``one``: ``strengths`` (those on the data sets), ``beats`` (lowers
        cross-entropy *and* raises AUROC, without augmentation) ``of`` so many data sets, ``adds``
        (lowers cross-entropy where all is augmented) ``of_augmented``, and ``reaches``, whether
        that is :data:`AIM`.
    """
    rows = []
    for (one, method), mine in found.groupby(["one", "method"], sort=False):
        alone, beside = mine[~mine["augmented"]], mine[mine["augmented"]]
        beats, adds = int((alone["lowers"] & alone["raises"]).sum()), int(beside["lowers"].sum())
        rows.append(
            {
                "one": one,
                "method": method,
                "strengths": list(dict.fromkeys(alone["strength"].dropna())),
                "beats": beats,
                "of": len(alone),
                "adds": adds,
                "of_augmented": len(beside),
                "reaches": beats >= AIM[0] and adds >= AIM[1],
            }
        )
    return pd.DataFrame(rows).sort_values(["one", "beats", "adds"], ascending=False)


def counts_table(found: pd.DataFrame) -> pd.DataFrame:
    """The counts as printed, a row a method that two data sets or more have.

    Args:
        found: As from :func:`outcomes`.
    """
    if found.empty or found["dataset"].nunique() < 2:
        return pd.DataFrame()
    every = counts(found).query("of > 1")
    chosen, alike = (every[every["one"] == kind].set_index("method") for kind in (False, True))
    rows = []
    for method in dict.fromkeys([*alike.index, *chosen.index]):
        row: dict[str, object] = {"Method": title(method)}
        for table, of in ((alike, "one strength for all"), (chosen, "chosen on each")):
            mine = table.loc[method] if method in table.index else None
            row |= {
                f"Beats none, {of}": words.DASH if mine is None else _of(mine["beats"], mine["of"]),
                f"Adds to augmentation, {of}": words.DASH
                if mine is None
                else _of(mine["adds"], mine["of_augmented"]),
            }
        strengths = chosen.loc[method, "strengths"] if method in chosen.index else []
        row["Strengths chosen"] = ", ".join(said_strength(value) for value in strengths)
        rows.append(row)
    return pd.DataFrame(rows).replace("", words.DASH)


def defaults_table(defaults: Sequence[Compared], measure: str = PRIMARY) -> pd.DataFrame:
    """Differences at one strength as printed: a row a method, a column a data set.

    Below stand those on top of augmentation, against augmentation alone. A star is Holm's p below
    0.05, over the methods of a data set with or without augmentation, in every measure.

    Args:
        defaults: As from :func:`recorded_defaults`.
        measure: A key of :data:`companion.rivals.MEASURES`.
    """
    columns: dict[str, dict[str, str]] = {}
    for each in sorted(defaults, key=lambda each: each.block.augment):
        found = each.of(measure)
        for row, p in zip(found.itertuples(), holm(found["p"]), strict=True):
            name = title(row.Index) + " + augmentation" * each.block.augment
            text = words.change(row) + "*" * (p < 0.05)
            columns.setdefault(_short(each), {})[name] = text
    names = [
        title(name) + " + augmentation" * augment
        for augment in (False, True)
        for name in [*one_default.STRENGTHS, *([] if augment else ["augmented"])]
    ]
    printed = {
        data: [said.get(name, words.DASH) for name in names] for data, said in columns.items()
    }
    return pd.DataFrame({"Method": names} | printed) if printed else pd.DataFrame()


def _short(each: Compared) -> str:
    return DATA[each.block.dataset].split(",")[0].removesuffix(" by lesion")


def _of(count: int, number: int) -> str:
    return f"{count} of {number}" if number else words.DASH


# ---------------------------------------------------------------- what explains the differences


def variation(blocks: Sequence[Compared]) -> pd.DataFrame:
    """What explains the variation of the primary outcome over all that is recorded, as printed.

    Data sets, augmentation, seeds and methods, and what two of them have together: the small
    network, data sets that are recorded with and without augmentation, and the methods that all of
    them have. What was turned off has the values of its reference.
    """
    wide: dict[str, dict[bool, pd.DataFrame]] = {}
    for each in blocks:
        if each.block.model == "small_cnn":
            found = _wide(each, PRIMARY).rename(columns={_own(each): "none"})
            wide.setdefault(each.block.dataset, {})[each.block.augment] = found
    pairs = [(both[False], both[True]) for both in wide.values() if len(both) == 2]
    if not pairs:
        return pd.DataFrame()
    tables = [table for pair in pairs for table in pair]
    methods = [name for name in tables[0] if all(name in table for table in tables)]
    values = np.array([[table[methods].to_numpy() for table in pair] for pair in pairs])
    names = ["data set", "augmentation", "seed", "method"]
    if len(pairs) == 1:
        values, names = values[0], names[1:]
    rows = [
        (words.capital(" with ".join(name)) or "Rest", words.percent(share, 1))
        for name, share in variance_shares(values, names).items()
    ]
    return pd.DataFrame(rows, columns=["Factor", "Share of the variation"])


def facts(
    blocks: Sequence[Compared], defaults: Sequence[Compared], unseen: Sequence[Compared] = ()
) -> dict[str, object]:
    """What the text says in numbers, by name.

    Args:
        blocks: Of the comparison.
        defaults: As from :func:`recorded_defaults`.
        unseen: As from :func:`recorded_volumes`.
    """
    small = {each.block.dataset for each in blocks if each.block.model == "small_cnn"}
    told: dict[str, object] = {"over_datasets": len(small)}
    found = outcomes(blocks, defaults)
    every = counts(found) if len(found) else pd.DataFrame(columns=["method"])
    for row in every[every["method"].isin([*MAIN, "augmented"])].itertuples():
        kind = "one" if row.one else "chosen"
        told[f"over_{row.method}_{kind}_beats"] = _of(row.beats, row.of)
        told[f"over_{row.method}_{kind}_adds"] = _of(row.adds, row.of_augmented)
    if defaults:
        told["over_weight"] = said_strength(defaults[0].strengths["tuned"])
        told["default_seeds"] = int(defaults[0].of(PRIMARY)["n"].max())
    for each in defaults:
        head = f"default_{each.block.dataset}{'_augmented' * each.block.augment}"
        told |= _differences(head, each, TOLD)
        area = each.of("test_auroc")
        for method, p in zip(area.index, holm(area["p"]), strict=True):
            told[f"{head}_{method}_test_auroc_p"] = words.p_value(p)
    for each in unseen:
        told |= _differences("volumes", each, (*TOLD, "scaled_cross_entropy"))
        first, images = each.of(PRIMARY), each.over_images
        hold = [named(name) for name, does in holds(each).items() if does]
        beyond = (images["p_holm"] < 0.05) & (images["mean"] < 0)
        told |= {
            "volumes_methods": len(first),
            "volumes_seeds": int(first["n"].max()),
            "volumes_lower": int(((first["p_holm"] < 0.05) & (first["mean"] < 0)).sum()),
            "volumes_lower_images": int(beyond.sum()),
            "volumes_hold": words.listed(hold) if hold else "none",
        }
    reach = [named(row.method) for row in every.itertuples() if row.reaches and row.one]
    return told | {"over_reaches": words.listed(reach) if reach else "none"}


def _differences(head: str, each: Compared, measures: Sequence[str]) -> dict[str, str]:
    """By name, as said in the text."""
    return {
        f"{head}_{row.Index}_{measure}": words.change(row)
        for measure in measures
        for row in each.of(measure).itertuples()
    }


def figure(
    blocks: Sequence[Compared],
    measures: Sequence[str] = (PRIMARY, "test_auroc"),
    *,
    methods: Collection[str] | None = None,
    model: str = "small_cnn",
    augment: bool = False,
) -> Figure | None:
    """Differences on each data set side by side, and the mean ranks over them, a measure a line.

    A row a method that all the data sets have, or of these the ``methods``, the best mean rank in
    the first measure first. The bar around a rank is half the critical difference to each side: two
    methods whose bars do not touch differ.

    Returns:
        ``None`` where fewer than two data sets are recorded.
    """
    mine = [each for each in blocks if (each.block.model, each.block.augment) == (model, augment)]
    if len(mine) < 2:
        return None
    order: list[str] = []
    # So few rows that each can be told from the back of a room.
    shown = [name for name in means(mine) if methods is None or name in methods]
    size = (3.2 + 1.5 * (len(mine) + 1), len(measures) * (0.6 + 0.26 * len(shown)))
    figure, lines = plt.subplots(len(measures), len(mine) + 1, figsize=size, squeeze=False)
    for axes, measure in zip(lines, measures, strict=True):
        table = means(mine, measure)[shown]
        found = ranking(table.to_numpy() * (-1 if MEASURES[measure][1] else 1))
        ranks = dict(zip(table.columns, found.ranks, strict=True))
        order = order or sorted(ranks, key=ranks.__getitem__)
        for ax, each in zip(axes, mine, strict=False):
            forest(ax, each, measure, order)
        half, places = found.critical_difference / 2, range(len(order))
        middle = [ranks[name] for name in order]
        axes[-1].errorbar(middle, places, xerr=half, fmt="o", color="black", lw=1, ms=5)
        axes[-1].set_xlabel("mean rank")
        axes[-1].set_xlim(0.5, len(order) + 0.5)
        axes[-1].grid(axis="y", visible=False)
        for ax in axes:
            ax.set_ylim(len(order) - 0.4, -0.6)
            ax.set_yticks(places, [])
        axes[0].set_yticks(places, map(title, order))
    for ax, each in zip(lines[0], mine, strict=False):
        ax.set_title(_short(each), size="small")
    lines[0, -1].set_title("All", size="small")
    return figure
