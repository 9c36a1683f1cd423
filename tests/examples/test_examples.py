"""The worked examples: each is run, and a step of it is compared with NumPy in float64."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import varreg
from varreg.weights import GradientRatio

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
#: What a script imports beside PyTorch and this package.
NEEDS = {
    "ask_first": [],
    "plain_loop": [],
    "lightning_module": ["lightning"],
    "hf_trainer": ["transformers", "accelerate"],
    "monai_trainer": ["monai", "ignite"],
    "fastai_callback": ["fastai"],
    "keras_layer": ["keras"],
}
Numbers = NDArray[np.float64]

# What other libraries warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a script as ``python examples/NAME.py`` does, and hand over what it leaves."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def ran(name: str) -> dict[str, Any]:
        for module in NEEDS[name]:
            pytest.importorskip(module, reason=f"{name}.py is for {module}, which is not here")
        return runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")

    return ran


def numbers(tensor: torch.Tensor) -> Numbers:
    return tensor.detach().cpu().double().numpy()


class ByHand:
    """What a step of a linear head on features is to cost, in NumPy."""

    def __init__(self, features: torch.Tensor, head: torch.nn.Linear, labels: torch.Tensor) -> None:
        f, w, y = numbers(features), numbers(head.weight), labels.numpy()
        logits = f @ w.T + numbers(head.bias)
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        self.probabilities = shifted / shifted.sum(1, keepdims=True)
        self.right = self.probabilities[np.arange(len(y)), y]
        self.cross_entropy = -np.log(self.right).mean()
        deviations = f - f.mean(0)
        self.penalty = (deviations**2).mean()
        pulls = (self.probabilities - np.eye(w.shape[0])[y]) @ w / len(f)
        self.ratio = np.linalg.norm(pulls) / np.linalg.norm(2 * deviations / f.size)

    def weight(self, weight: GradientRatio) -> float:
        """What :class:`GradientRatio` gives at this step, from its state before it."""
        old = weight.smoothing
        average = old * weight.average.item() + (1 - old) * self.ratio
        return weight.rho * average / (old * weight.share.item() + 1 - old)

    def total(self, weight: GradientRatio) -> float:
        return self.cross_entropy + self.weight(weight) * self.penalty


def close(value: float) -> object:
    return pytest.approx(value, rel=1e-4)


def pays_and_learns(total: float, cross_entropy: float, before: float, after: float) -> None:
    assert total > 1.001 * cross_entropy
    assert after < 0.98 * before


def test_ask_first(run, capsys):
    ran = run("ask_first")
    said = capsys.readouterr().out
    assert "Answer    try it" in said
    model, loader, task = ran["mine"]()
    batches = list(loader)
    hands = [ByHand(model[:-1](x), model[-1], y) for x, y in batches[:8]]
    advice = varreg.recommend(model, batches, task, images=600)
    assert advice.ratio == close(np.median([hand.ratio for hand in hands]))
    assert advice.mean_variance == close(np.mean([hand.penalty for hand in hands]))
    assert f"rho={advice.rho:g}" in said
    for script in SCRIPTS:  # what the probe suggests is what the examples do
        rhos = re.findall(r"rho=([\d.]+)", script.read_text())
        assert {float(rho) for rho in rhos} <= {advice.rho}


def test_plain_loop(run):
    ran = run("plain_loop")
    x, y = ran["train"][:32]
    network = ran["model"]
    hand = ByHand(network[:-1](x), network[-1], y)
    total = hand.total(ran["weight"])
    parts = ran["train_step"](x, y)
    assert parts == {
        "total": close(total),
        "cross_entropy": close(hand.cross_entropy),
        "penalty": close(hand.penalty),
    }
    losses = [parts["cross_entropy"] for parts in ran["history"]]
    pays_and_learns(total, hand.cross_entropy, np.mean(losses[:3]), np.mean(losses[-3:]))


def test_lightning_module(run):
    ran = run("lightning_module")
    module, network = ran["module"], ran["network"]
    x, y = ran["images"][:32], ran["labels"][:32]
    module.train()
    logged = {}
    module.log_dict = logged.update
    hand = ByHand(network[:-1](x), network[-1], y)
    total = hand.total(module.criterion.weight)
    assert module.training_step((x, y), 0).item() == close(total)
    assert logged["train_penalty"].item() == close(hand.penalty)
    assert logged["train_cross_entropy"].item() == close(hand.cross_entropy)
    seen = ran["trainer"].callback_metrics
    before, after = ran["before"]["val_cross_entropy"], seen["val_cross_entropy"].item()
    pays_and_learns(seen["train_total"].item(), seen["train_cross_entropy"].item(), before, after)
    assert "criterion.weight.average" in module.state_dict()


def test_hf_trainer(run):
    ran = run("hf_trainer")
    trainer, x, y = ran["trainer"], ran["images"][:32], ran["labels"][:32]
    model = trainer.model.train()

    def inputs():
        return {"pixel_values": x, "labels": y}

    def by_hand():
        features = model.vit(x).last_hidden_state[:, 0]
        return ByHand(features, model.classifier, y)

    weight = trainer.criterion.weight
    total = by_hand().total(weight)
    loss = trainer.compute_loss(model, inputs(), num_items_in_batch=torch.tensor(32))
    assert loss.item() == close(total)
    assert trainer.parts["penalty"] == close(by_hand().penalty)
    total = by_hand().total(weight)
    loss, outputs = trainer.compute_loss(model, inputs(), return_outputs=True)
    assert loss.item() == close(total)
    assert outputs.logits.shape == (32, 2)
    total = by_hand().total(weight)
    trainer.current_gradient_accumulation_steps = 4  # a mean over a quarter of the step
    assert trainer.training_step(model, inputs(), torch.tensor(128)).item() == close(total / 4)
    model.eval()
    assert trainer.compute_loss(model, inputs()).item() == close(by_hand().cross_entropy)
    (step,) = [row for row in trainer.state.log_history if row.get("step") == 2 and "loss" in row]
    assert step["loss"] == close(step["total"])
    before, after = ran["before"]["eval_loss"], ran["after"]["eval_loss"]
    pays_and_learns(step["total"], step["cross_entropy"], before, after)


def test_monai_trainer(run):
    ran = run("monai_trainer")
    network, loss = ran["network"].train(), ran["trainer"].loss_function
    x, y = ran["images"][:32], ran["labels"][:32]
    *before, head = ran["network"].class_layers
    hand = ByHand(torch.nn.Sequential(*before)(network.features(x)), head, y)
    focal = -((1 - hand.right) ** 2 * np.log(hand.right)).mean() / 2
    weighted = hand.weight(loss.criterion.weight) * hand.penalty
    assert loss(network(x), y).item() == close(focal + weighted)
    assert loss.parts["penalty"].item() == close(hand.penalty)
    history = ran["history"]
    assert len(history) == 15
    totals = [parts["total"] for parts in history]
    pays_and_learns(focal + weighted, focal, np.mean(totals[:3]), np.mean(totals[-3:]))


def test_fastai_callback(run):
    ran = run("fastai_callback")
    learn, penalized = ran["learn"], ran["callbacks"][0]
    seen = []

    class Watch(ran["Callback"]):
        order, run_valid = penalized.order + 1, False

        def after_pred(self):
            features = self.learn.model[:-1](self.learn.xb[0])
            hand = ByHand(features, self.learn.model[-1], self.learn.yb[0])
            self.expected = hand.total(penalized.weight), hand.cross_entropy

        def after_loss(self):
            seen.append((self.expected, (self.learn.loss_grad.item(), self.learn.loss.item())))

    learn.fit(1, cbs=Watch())
    assert len(seen) == 3
    for expected, given in seen:
        assert given == close(expected)
    total, cross_entropy = seen[-1][0]
    pays_and_learns(total, cross_entropy, ran["before"], learn.recorder.values[-1][1])


def test_keras_layer(run):
    ran = run("keras_layer")
    keras, model = ran["keras"], ran["model"]
    x, y = ran["images"][:32], ran["labels"][:32]
    features = keras.Sequential(model.layers[:3])(x)
    kernel, bias = (np.float64(weight) for weight in model.layers[-1].get_weights())
    f = numbers(features)
    logits = f @ kernel + bias
    cross_entropy = np.logaddexp(0, (1 - 2 * y) * logits).mean()
    total = cross_entropy + 0.1 * f.var(0).mean()
    tested = model.test_on_batch(x, y, return_dict=True)
    assert tested["loss"] == close(cross_entropy)
    model.reset_metrics()
    trained = model.train_on_batch(x, y, return_dict=True)
    assert trained["loss"] == close(total)
    assert trained["cross_entropy"] == close(cross_entropy)
    losses = ran["history"]["val_loss"]
    pays_and_learns(total, cross_entropy, losses[0], losses[-1])
    copied = keras.models.clone_model(model)
    assert copied.layers[3].weight == 0.1
    ops = keras.ops  # what the page says of the other backends
    mean = ops.mean(ops.var(features, axis=0))
    assert float(mean.detach()) == close(f.var(0).mean())


def marked(script: Path) -> set[int]:
    """The lines that a script marks; a statement that begins on one, to its end."""
    source = script.read_text()
    lines = {n for n, line in enumerate(source.splitlines(), 1) if "  # varreg" in line}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and node.lineno in lines:
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            lines |= set(range(first, node.end_lineno + 1))
    return lines


def test_every_example_is_tested_and_has_a_page():
    names = {script.stem for script in SCRIPTS}
    assert names == set(NEEDS) == {page.stem for page in (ROOT / "book/examples").glob("*.md")}
    contents = (ROOT / "_toc.yml").read_text()
    assert all(f"book/examples/{name}" in contents for name in names)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_page_shows_the_script_and_marks_its_lines(script):
    page = (ROOT / "book/examples" / f"{script.stem}.md").read_text()
    assert f"{{literalinclude}} ../../examples/{script.name}" in page
    shown = set()
    for part in re.search(r"^:emphasize-lines: (.+)$", page, flags=re.M)[1].split(","):
        first, _, last = part.strip().partition("-")
        shown |= set(range(int(first), int(last or first) + 1))
    code = script.read_text().splitlines()
    blank = {n for n, line in enumerate(code, 1) if not line.strip()}
    assert shown - blank == marked(script) - blank
    assert len(code) <= 60, "more than a screen"
    assert len(page.splitlines()) <= 30, "more than a screen"
