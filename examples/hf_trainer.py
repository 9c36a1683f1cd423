"""The Trainer of Hugging Face's transformers."""

import tempfile

import torch
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import varreg  # varreg
from varreg.weights import GradientRatio  # varreg


class PenalizedTrainer(Trainer):  # varreg: all of it
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False  # a mean; divide it when accumulating
        self.tap = varreg.FeatureTap(self.model)
        weight = GradientRatio(rho=0.027)
        criterion = varreg.PenalizedLoss("multiclass", varreg.feature_variance, weight)
        self.criterion, self.parts = criterion.to(self.args.device), {}

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels = inputs.pop("labels")  # or the model computes a loss of its own
        outputs = model(**inputs)
        features = self.tap.take()
        if model.training:
            parts = self.criterion(outputs.logits, labels, features)._asdict()
            loss = parts["total"]
            self.parts = {name: value.item() for name, value in parts.items()}
        else:  # eval_loss is the cross-entropy
            loss = self.criterion.cross_entropy(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs, *args, **kwargs):
        parts = self.parts if "loss" in logs else {}  # beside the loss of a step
        super().log({**logs, **parts}, *args, **kwargs)


torch.manual_seed(0)
labels = torch.arange(160) % 2  # your own images here
images = torch.rand(160, 1, 16, 16) + 0.5 * labels.view(-1, 1, 1, 1)
data = [{"pixel_values": x, "labels": y} for x, y in zip(images, labels, strict=True)]
config = ViTConfig(
    image_size=16, patch_size=8, num_channels=1, num_labels=2,
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
)  # fmt: skip
arguments = TrainingArguments(
    tempfile.mkdtemp(), num_train_epochs=8, per_device_train_batch_size=32, learning_rate=1e-3,
    use_cpu=True, report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True,
)  # fmt: skip
trainer = PenalizedTrainer(  # varreg
    ViTForImageClassification(config), arguments, train_dataset=data[:96], eval_dataset=data[96:]
)
before = trainer.evaluate()
trainer.train()
after = trainer.evaluate()
