import pytest

from companion import try_it
from varreg.lab.statistics import paired_difference


@pytest.mark.parametrize(
    ("loss", "auroc", "words"),
    [
        ((-0.1, 0.001), (0.0, 0.1), "helps:"),
        ((0.1, 0.001), (0.0, 0.1), "makes the model worse:"),
        ((0.0, 0.1), (-0.1, 0.001), "makes the model worse:"),
        ((-0.1, 0.001), (-0.1, 0.001), "helps in one thing and hurts in another:"),
        ((0.0, 0.1), (0.0, 0.1), "makes no clear difference:"),
    ],
)
def test_plain_words_follow_from_the_intervals(loss, auroc, words):
    def change(mean, spread):
        return paired_difference([mean - spread, mean, mean + spread], [0, 0, 0])

    text = try_it.in_plain_words({"cross_entropy": change(*loss), "auroc": change(*auroc)})
    assert text.startswith(f"Here the penalty {words} it ")
    assert ("may lower or raise cross-entropy" in text) == (loss[0] == 0)
    single = try_it.in_plain_words({"auroc": paired_difference([1.0], [0.5])})
    assert "cannot tell an effect from luck" in single
