"""A training loop in plain PyTorch."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import varreg  # varreg
from varreg.weights import GradientRatio  # varreg

torch.manual_seed(0)
labels = torch.arange(160) % 2  # your own images here
images = torch.rand(160, 1, 16, 16) + 0.3 * labels.view(-1, 1, 1, 1)
train = TensorDataset(images[:96], labels[:96])
val = TensorDataset(images[96:], labels[96:])

model = nn.Sequential(
    nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 7 * 7, 2)
)
optimizer = torch.optim.Adam(model.parameters())
penalty, weight = varreg.feature_variance, GradientRatio(rho=0.027)  # varreg: sets itself
criterion = varreg.PenalizedLoss("multiclass", penalty, weight)  # varreg: not CrossEntropyLoss
tap = varreg.FeatureTap(model)  # varreg: what enters the layer that makes the logits


def train_step(x, y):
    model.train()
    logits = model(x)
    parts = criterion(logits, y, tap.take())  # varreg
    optimizer.zero_grad()
    parts.total.backward()  # varreg: learn from the total,
    optimizer.step()
    return {name: value.item() for name, value in parts._asdict().items()}  # varreg: for the log


@torch.no_grad()
def evaluate():
    model.eval()
    x, y = val[:]
    return criterion.cross_entropy(model(x), y).item()  # varreg: compare by this part


history = []
for epoch in range(5):
    for x, y in DataLoader(train, 32, shuffle=True, drop_last=True):
        history.append(train_step(x, y))
    shown = "  ".join(f"{name} {value:.4f}" for name, value in history[-1].items())
    print(f"epoch {epoch + 1}: {shown}  val_cross_entropy {evaluate():.4f}")
