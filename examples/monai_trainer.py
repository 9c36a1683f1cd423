"""The SupervisedTrainer of MONAI, with a loss wrapper in the form of its DeepSupervisionLoss."""

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.losses import FocalLoss
from monai.networks.nets import DenseNet
from torch.nn.modules.loss import _Loss

import varreg  # varreg
from varreg.weights import GradientRatio  # varreg


class PenaltyLoss(_Loss):  # varreg: all of it
    """A loss of MONAI, plus the penalty on the features of the network that is tapped."""

    def __init__(self, loss, tap, task="multiclass", rho=0.027):
        super().__init__()
        self.tap = tap
        penalty, weight = varreg.feature_variance, GradientRatio(rho)
        self.criterion = varreg.PenalizedLoss(task, penalty, weight, classification=loss)

    def forward(self, input, target):
        parts = self.criterion(input, target, self.tap.take())
        self.parts = {name: value.detach() for name, value in parts._asdict().items()}
        return parts.total


torch.manual_seed(0)
labels = torch.arange(96) % 2  # your own images here
images = torch.rand(96, 1, 16, 16) + 0.3 * labels.view(-1, 1, 1, 1)
data = [{"image": x, "label": y} for x, y in zip(images, labels, strict=True)]
network = DenseNet(2, 1, 2, init_features=8, growth_rate=4, block_config=(2, 2))
focal = FocalLoss(to_onehot_y=True, use_softmax=True)
tap = varreg.FeatureTap(network)  # varreg
loss = PenaltyLoss(lambda logits, y: focal(logits, y[:, None]), tap)  # varreg
trainer = SupervisedTrainer(
    device=torch.device("cpu"),
    max_epochs=5,
    train_data_loader=torch.utils.data.DataLoader(data, 32, shuffle=True, drop_last=True),
    network=network,
    optimizer=torch.optim.Adam(network.parameters(), 3e-3),
    loss_function=loss,  # varreg
)
history = []


@trainer.on(Events.ITERATION_COMPLETED)
def log(engine):
    history.append({name: value.item() for name, value in loss.parts.items()})  # varreg


trainer.run()
print({name: round(value, 4) for name, value in history[-1].items()})
