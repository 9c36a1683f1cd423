"""The paper's claims and numbers as tables of the book."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from companion import published, verdicts
from companion.claims import Claim, Judgement
from companion.rules import COLUMN_OF, Part, change_text, judged, printed, range_text, rules
from companion.tables import mean_change, published_table
from companion.words import DASH
from companion.words import number as number_text

if TYPE_CHECKING:
    from IPython.display import HTML


COLUMNS = ("Claim", "Published", "Verdict", "Measured", "Make it again")
NUMBERS_NOTEBOOK = "04_published_numbers"
RULES_PAGE = "../book/claims.html"
KIND_NAMES = {
    "words": "Claims in words",
    "number": "Tables I to IV",
    "figure": "Figures",
}
#: An author's warning that is not met here is no failed claim.
CAVEAT_WORDS = {
    "reproduced": "confirmed",
    "partly": "confirmed in part",
    "not reproduced": "not seen here",
    "contradicted": "not seen here",
    "cannot be known": "cannot be known",
}
#: What a second verdict is about, by rule, where it is not the best weight above zero.
SECOND = {"stability": "larger weights", "overhead": "all features"}
#: Whether a printed change lies where one further run is expected, by the verdict on it.
IN_RANGE = {"reproduced": "yes", "not reproduced": "no", "cannot be known": "cannot be told"}


def numbers(runs: pd.DataFrame, experiment: str, source: str | None = None) -> pd.DataFrame:
    """Every published test number of one experiment beside the released protocol, re-run.

    Args:
        runs: Rows of the study ``chest_paper`` or ``skin_paper``.
        experiment: ``"chest"`` or ``"skin"``.
        source: As in :func:`companion.published.select`; default the paper's tables.
    """
    chosen = published.select(experiment, source=source or published.TABLES[experiment])
    return published_table(runs, chosen)


def shifts(runs: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """The improvements that the paper derives from its tables, re-measured.

    *In range* is about the change as printed, against the change in our unscaled cross-entropy;
    it cannot be told where the range holds "no change" too. Beside it stands what the printed
    losses say once each is divided by its lambda. The verdict is that of the claim in words.

    Args:
        runs: Rows of the study ``chest_paper`` or ``skin_paper``.
        experiment: ``"chest"`` or ``"skin"``.

    Returns:
        The columns of :func:`numbers`, with *In range* for the verdict, and without the values that
        are measured as the published were.
    """
    rows = []
    for shift in (each for each in published.SHIFTS if each.experiment == experiment):
        values, word = judged(runs, shift)
        relative = shift.metric == "loss"
        rows.append(
            {
                "Model": shift.method,
                "Number": f"{shift.metric}, change from {shift.reference}",
                "Definition": _shift_definition(shift),
                "Published": _change_text(shift.value, shift.metric),
                "On one scale": _change_text(shift.comparable, shift.metric),
                "Recorded": change_text(mean_change(values), relative),
                "One run": range_text(values, relative),
                "Runs": len(values),
                "In range": IN_RANGE[word],
            }
        )
    return pd.DataFrame(rows)


def counts(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """How often each verdict on the penalty as published is given, a column a kind of claim.

    An improvement has the verdict of the claim in words that it belongs to, and a caveat is no
    claim about the method: neither is counted.

    Example:
        >>> from companion.claims import judge
        >>> table = counts(judge({})).set_index("Verdict")
        >>> int(table.loc["cannot be known", "Figures"]), int(table.loc["partly", "All"])
        (10, 0)
    """
    table = pd.DataFrame({"Verdict": verdicts.VERDICTS})
    for kind, name in KIND_NAMES.items():
        words = [each.verdict for each in judgements if each.claim.kind == kind]
        table[name] = [words.count(verdict) for verdict in verdicts.VERDICTS]
    table["All"] = table[list(KIND_NAMES.values())].sum(axis=1)
    return table


def published_text(claim: Claim) -> str:
    """What the paper prints about a claim.

    Example:
        >>> from companion.claims import load
        >>> by_id = {claim.id: claim for claim in load()}
        >>> print(published_text(by_id["skin-accuracy"]))
        +17.62 points
        >>> published_text(by_id["skin-penalized-loss"]), published_text(by_id["figure-1"])
        ('0.4167; 0.8334 on one scale', 'two curves')
    """
    if claim.kind == "figure":
        return "two curves"
    if claim.kind == "number":
        stated, form = _number(claim), "{:.4f}".format
    elif (stated := _shift(claim)) is None:
        return "in words"
    else:
        form = partial(_change_text, metric=stated.metric)
    text, fair = form(stated.value), form(stated.comparable)
    told = claim.kind == "words" or fair == text
    return text if told else f"{text}; {fair} on one scale"


def show_claims(judgements: Sequence[Judgement]) -> HTML:
    """Print claims with their verdicts in a notebook, a row a claim."""
    return _html({f"claim-{each.claim.id}": _cells(each) for each in judgements}, COLUMNS)


def show_rules() -> HTML:
    """Print the rules in a notebook."""
    rows = {}
    for rule in rules().values():
        said = (rule.reproduced, rule.refuted, rule.unknown)
        rows[f"rule-{rule.name}"] = (rule.name, *map(html.escape, said))
    return _html(rows, ("Rule", "Reproduced", "Not reproduced", "Cannot be known"))


def link(target: str, text: str) -> str:
    """A link from a page or a notebook of the book to a place in a notebook.

    Args:
        target: ``notebook#anchor``.
        text: What to click on.

    Example:
        >>> link("01_chest_xray#fig-chest-published", "figure")
        '<a href="../notebooks/01_chest_xray.html#fig-chest-published">figure</a>'
    """
    notebook, _, anchor = target.partition("#")
    return f'<a href="../notebooks/{notebook}.html#{anchor}">{text}</a>'


def _parts_html(parts: Sequence[Part]) -> str:
    """A line a part; what several networks share is said once."""
    if not any(part.n for part in parts):
        return f"<div>{DASH}</div>"
    lines = []
    for label, group in itertools.groupby(parts, key=lambda part: part.label):
        values = [
            (f"<small>{html.escape(part.network)}</small> " if part.network else "")
            + _unbroken(part.text)
            for part in group
        ]
        head = f"{html.escape(label)}:"
        lines += [f"{head} {values[0]}"] if len(values) == 1 else [head, *values]
    seeds = sorted({part.n for part in parts})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    lines.append(f"<small>{count} {parts[0].unit}{'s' * (count != '1')}</small>")
    return "".join(f"<div>{line}</div>" for line in lines)


def _unbroken(text: str) -> str:
    """A mean and its interval stay on one line."""
    first, mark, rest = text.partition(";")
    return html.escape(first).replace(" ", "&nbsp;") + html.escape(mark + rest)


def _badge(verdict: str, kind: str) -> str:
    name, word = verdict.replace(" ", "-"), verdict
    if kind == "caveat":
        name, word = "caveat", CAVEAT_WORDS[verdict]
    return f'<span class="verdict {name}">{word}</span>'


def _number(claim: Claim) -> published.Number:
    by = claim.by
    source = published.TABLES[by["experiment"]]
    return published.find(by["experiment"], by["method"], by["metric"], source=source)


def _shift(claim: Claim) -> published.Shift | None:
    """The size that the paper prints for a claim, if it prints one."""
    by = claim.by
    if claim.kind == "change":
        return printed(by["experiment"], by["metric"], by["reference"])
    names = [name for name, column in COLUMN_OF.items() if by.get("metrics") == [column]]
    return printed(by["study"], names[0], by.get("reference", "baseline")) if names else None


def _shift_definition(shift: published.Shift) -> str:
    """What the two numbers are that a printed change is the difference of."""
    # What the bar showed; that it was a bar is said once.
    old, new = (each.definition.rpartition("running ")[2] for each in shift.ends)
    return f"two progress bars: {old}" + (f"; {new}" if new != old else "")


def _change_text(value: float, metric: str) -> str:
    return f"{number_text(value, 2, signed=True)} {'points' if metric == 'accuracy' else '%'}"


def _html(rows: Mapping[str, Sequence[str]], columns: Sequence[str]) -> HTML:
    """A table of cells of HTML, by the anchor of their row, that turns into cards on a phone."""
    from IPython.display import HTML

    head = "".join(f"<th>{name}</th>" for name in columns)
    lines = []
    for anchor, cells in rows.items():
        line = "".join(
            f"<th>{cell}</th>" if name == "Rule" else f'<td data-label="{name}">{cell}</td>'
            for name, cell in zip(columns, cells, strict=True)
        )
        lines.append(f'<tr id="{anchor}">{line}</tr>')
    body = "\n".join(lines)
    return HTML(
        f'<table class="dataframe claims">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )


def _cells(judgement: Judgement) -> tuple[str, ...]:
    claim = judgement.claim
    second = judgement.second_verdict
    verdict = _badge(judgement.verdict, claim.kind)
    measured = _parts_html(judgement.parts)
    if claim.of is not None:
        verdict += _small(f'as <a href="#claim-{claim.of}">in words</a>')
    if second is not None:
        name = SECOND.get(claim.rule, "best weight above 0")
        verdict += f"<div><small>{name}</small> {_badge(second, claim.kind)}</div>"
        measured += f"<details><summary>{name}</summary>{_parts_html(judgement.chosen)}</details>"
    definition = ""  # of a printed number; the changes say it in their words
    if claim.kind == "number":
        definition = _small(f"Definition: {html.escape(_number(claim).definition)}.")
    section = link(f"{NUMBERS_NOTEBOOK}#{claim.section}", "Shown here")
    return (
        html.escape(claim.text) + _small(html.escape(claim.place)),
        html.escape(published_text(claim))
        + definition
        + _small(f"{html.escape(claim.what)} {section}."),
        verdict,
        measured,
        f"{link(claim.figure, 'figure')}<div><code>{html.escape(claim.command)}</code></div>"
        + _small(f'rule: <a href="{RULES_PAGE}#rule-{claim.rule}">{claim.rule}</a>'),
    )


def _small(text: str) -> str:
    return f"<div><small>{text}</small></div>"
