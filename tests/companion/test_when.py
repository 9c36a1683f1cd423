"""The studies that ask when the penalty helps."""

import dataclasses

import pytest

from companion.studies import WHEN, specs
from companion.studies.few_images import METHODS
from companion.studies.rivals_tuning import BLOCKS, chosen_strengths


def test_strengths_are_those_that_breastmnist_chose():
    plain, augmented = (chosen_strengths(block) for block in BLOCKS[:2])
    for name, given in METHODS.items():
        strength = given.get("strength", given.get("variance_weight"))
        if strength is not None:
            chosen = augmented if given.get("augment") else plain
            assert strength == chosen[given["method"]], name


@pytest.mark.parametrize("study", WHEN)
def test_whatever_is_compared_has_the_same_seeds_images_and_labels(study):
    listed = specs(study)
    seeds: dict[object, list[int]] = {}
    for spec in listed:
        seeds.setdefault(dataclasses.replace(spec, seed=0, draw=0), []).append(spec.seed)
    assert len({tuple(each) for each in seeds.values()}) == 1
    # One draw a seed, the same for every method; none where there is nothing to draw.
    by_level: dict[object, set[object]] = {}
    for spec in listed:
        level = (spec.dataset, spec.model, spec.train_share, spec.wrong_labels, spec.wrong_kind)
        by_level.setdefault((*level, spec.seed), set()).add(spec.draw)
    assert all(len(draws) == 1 for draws in by_level.values())


def test_fewer_images_are_seen_in_as_many_steps_up_to_a_limit():
    steps = {
        spec.train_share: round(spec.epochs * spec.train_share)
        for spec in specs("few_images")
        if spec.dataset == "pneumoniamnist"
    }
    assert steps == {0.05: 5, 0.1: 10, 0.25: 20, 0.5: 20, 1.0: 20}
