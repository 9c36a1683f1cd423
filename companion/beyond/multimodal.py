"""Images beside what is known of the patient."""

from __future__ import annotations

from pathlib import Path

from companion.beyond.effects import TITLES, Pair, Section, recorded_units

COMPARED = (
    Pair("alone", TITLES["fixed"] + ", images alone", "images fixed", "images none"),
    Pair("fixed", TITLES["fixed"] + ", all features", "both fixed", "both none"),
    Pair("fixed_images", TITLES["fixed"] + ", image features", "both fixed_images", "both none"),
    Pair("self_setting", TITLES["self_setting"], "both self_setting", "both none"),
    Pair("table", "the table, without a penalty", "both none", "images none", drawn=False),
)


def sections(results: Path | None = None) -> list[Section]:
    """It is there where every unit is recorded."""
    runs, _ = recorded_units("multimodal", results)
    if runs.empty:
        return []
    runs = runs.assign(method=runs["inputs"] + " " + runs["penalty"])
    return [Section("multimodal", "HAM10000 with a table", runs, COMPARED)]


def facts(section: Section) -> dict[str, object]:
    """How many training images there are, and of how many the age is missing, at the most."""
    return {
        "beyond_multimodal_training_images": int(section.runs["images"].max()),
        "beyond_multimodal_without_age": int(section.runs["without_age"].max()),
    }
