"""A module of Lightning."""

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import varreg  # varreg
from varreg.weights import GradientRatio  # varreg


class Classifier(lightning.LightningModule):
    def __init__(self, network):
        super().__init__()
        self.network = network
        self.tap = varreg.FeatureTap(network)  # varreg: on the network, not on the module itself
        penalty, weight = varreg.feature_variance, GradientRatio(rho=0.027)  # varreg: sets itself
        self.criterion = varreg.PenalizedLoss("multiclass", penalty, weight)  # varreg

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.network(x)
        parts = self.criterion(logits, y, self.tap.take())  # varreg
        self.log_dict({f"train_{name}": value for name, value in parts._asdict().items()})  # varreg
        return parts.total  # varreg

    def validation_step(self, batch, batch_idx):
        x, y = batch
        cross_entropy = self.criterion.cross_entropy(self.network(x), y)  # varreg: no penalty
        self.log("val_cross_entropy", cross_entropy)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


torch.manual_seed(0)
labels = torch.arange(160) % 2  # your own images here
images = torch.rand(160, 1, 16, 16) + 0.3 * labels.view(-1, 1, 1, 1)
train = DataLoader(TensorDataset(images[:96], labels[:96]), 32, shuffle=True, drop_last=True)
val = DataLoader(TensorDataset(images[96:], labels[96:]), 32)
network = nn.Sequential(
    nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 7 * 7, 2)
)
module = Classifier(network)
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
trainer = lightning.Trainer(max_epochs=5, accelerator="cpu", **quiet)
before = trainer.validate(module, val, verbose=False)[0]
trainer.fit(module, train, val)
print({name: round(value.item(), 4) for name, value in trainer.callback_metrics.items()})
