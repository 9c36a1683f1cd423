"""A callback of fastai, as its own RNNRegularizer is one."""

import torch
from fastai.basics import Callback, DataLoaders, Learner, accuracy
from torch import nn
from torch.utils.data import TensorDataset

import varreg  # varreg
from varreg.weights import GradientRatio  # varreg


class FeaturePenalty(Callback):  # varreg: all of it
    run_valid = False  # valid_loss is the classification loss alone

    def __init__(self, penalty=varreg.feature_variance, rho=0.027):
        self.penalty, self.weight = penalty, GradientRatio(rho)

    def before_fit(self):
        self.tap = varreg.FeatureTap(self.learn.model)
        self.weight.to(self.dls.device)

    def after_loss(self):
        features = self.tap.take()
        penalty = self.penalty(features)
        weight = self.weight(self.learn.loss_grad, penalty, features)
        self.learn.loss_grad = self.learn.loss_grad + weight * penalty
        self.parts = {"penalty": penalty.item(), "weight": weight.item()}  # for the log

    def after_fit(self):
        self.tap.remove()


torch.manual_seed(0)
labels = torch.arange(160) % 2  # your own images here
images = torch.rand(160, 1, 16, 16) + 0.3 * labels.view(-1, 1, 1, 1)
dls = DataLoaders.from_dsets(
    TensorDataset(images[:96], labels[:96]), TensorDataset(images[96:], labels[96:]), bs=32,
    device=torch.device("cpu"),
)  # fmt: skip
model = nn.Sequential(
    nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 7 * 7, 2)
)
callbacks = [FeaturePenalty()]  # varreg
learn = Learner(dls, model, loss_func=nn.CrossEntropyLoss(), metrics=accuracy, cbs=callbacks)
before = learn.validate()[0]
learn.fit(5, 3e-3)
