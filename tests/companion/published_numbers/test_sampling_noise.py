import math

import numpy as np
import pytest
import torch

from companion.published_numbers import sampling_noise
from tests.companion.synthetic_mechanics import sampling
from varreg.variance import feature_variance


def test_all_draws_together_have_the_mean_and_variance_of_theory():
    features = torch.randn(9, 7, dtype=torch.float64) * torch.arange(1, 8)
    drawn = 3
    values = sampling_noise.every_draw(features, drawn)
    assert len(values) == math.comb(7, drawn)
    assert values.mean().item() == pytest.approx(feature_variance(features).item())
    spread = np.var(features.numpy(), axis=0).var(ddof=1)
    assert values.var(correction=0).item() == pytest.approx((1 / drawn - 1 / 7) * spread)


def test_theory_fits_one_constant_a_model_and_nothing_else():
    rows = sampling()
    theory = sampling_noise.with_theory(rows)
    assert set(theory["ratio"]) == {0.02, 0.05, 0.2, 0.5}
    assert theory["predicted"].to_numpy() == pytest.approx(theory["gradient_noise"].to_numpy())
    # Noise that does not depend on the ratio is not what the theory says.
    flat = sampling_noise.with_theory(rows.assign(gradient_noise=1.0))
    off = flat["predicted"].to_numpy()
    assert np.exp(np.log(off).mean()) == pytest.approx(1.0)
    assert off.max() / off.min() == pytest.approx(49)  # (1/20 - 1/1000) / (1/500 - 1/1000)


def test_sampling_table_and_facts():
    means = sampling_noise.means(sampling()).set_index(["model", "ratio"])
    small = means.loc[("small_cnn", 0.2)]
    assert (small["drawn"], small["features"]) == (200, 1000)
    assert small["gradient_noise"] == pytest.approx(3.5 * 0.004)
    assert small["predicted"] == pytest.approx(small["gradient_noise"])
    assert means.loc[("small_cnn", 1.0), "predicted"] == 0  # no sampling, no noise
    facts = sampling_noise.facts(sampling())
    assert facts["sampling_small_cnn_random"] == "1.4 %"
    assert facts["sampling_small_cnn_comb"] == "0.35 %"
    assert facts["sampling_paper_cnn_batch"] == "70 %"
    assert facts["sampling_paper_cnn_off"] == "0 %"
    assert (facts["sampling_ratio"], facts["sampling_paper_cnn_bias"]) == (0.2, 1.0)
    assert facts["sampling_paper_cnn_comb_bias"] == pytest.approx(0.9)


def test_noise_is_drawn_where_theory_has_it():
    noise = sampling_noise.figure(sampling(1)).axes[0]
    dots, comb, curve, batch = noise.lines[:4]
    assert comb.get_ydata() == pytest.approx(dots.get_ydata() / 4)
    assert curve.get_ydata() == pytest.approx(dots.get_ydata())
    assert set(batch.get_ydata()) == {0.7}
    assert (noise.get_xscale(), noise.get_yscale()) == ("log", "log")
