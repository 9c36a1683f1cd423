import matplotlib
import pytest

from companion import style

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _style_and_no_open_figures():
    style.use_style()
    yield
    matplotlib.pyplot.close("all")
