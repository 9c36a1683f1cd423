"""A layer of Keras 3, on its PyTorch backend."""

import os

os.environ["KERAS_BACKEND"] = "torch"  # varreg
import keras
import numpy as np

import varreg  # varreg


@keras.saving.register_keras_serializable("varreg")
class VariancePenalty(keras.layers.Layer):  # varreg: all of it
    """Hands the features on as they are; a training step pays for their variance."""

    def __init__(self, weight=0.1, **options):
        super().__init__(**options)
        self.weight = weight

    def call(self, features, training=False):
        if training:  # val_loss is the cross-entropy
            penalty = self.weight * varreg.feature_variance(features)
            self.add_loss(penalty)  # as it is, whatever the size of the batch
        return features

    def get_config(self):
        return {**super().get_config(), "weight": self.weight}


keras.utils.set_random_seed(0)
labels = np.arange(160).reshape(-1, 1) % 2  # your own images here
images = np.random.default_rng(0).random((160, 16, 16, 1)) + 0.3 * labels[:, :, None, None]
images, labels = images.astype("float32"), labels.astype("float32")
model = keras.Sequential(
    [
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        VariancePenalty(weight=0.1),  # varreg: before the layer that makes the logits
        keras.layers.Dense(1),
    ]
)
cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)
part = keras.metrics.BinaryCrossentropy("cross_entropy", from_logits=True)  # varreg: for the log
model.compile("adam", cross_entropy, metrics=[part])
validation = (images[96:], labels[96:])
history = model.fit(images[:96], labels[:96], 32, 5, verbose=2, validation_data=validation).history
