"""Keras' own fit of the slides' CNN on random images, in an interpreter that has tensorflow; prints images/s.

The network as the slides describe it, 665,738 parameters, batch 128, Adam, categorical cross-entropy; the first epoch,
in which the graph is built, is left out.
"""

import os
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras
import numpy as np
from keras import layers

COUNT = 6_000
images = np.random.default_rng(0).random((COUNT, 28, 28, 1), dtype=np.float32)
target = np.arange(COUNT) % 10
model = keras.Sequential(
    [
        layers.Input((28, 28, 1)),
        layers.Conv2D(64, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(128, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Dropout(0.5),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dropout(0.25),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images, target, batch_size=128, epochs=1, verbose=0)
start = time.perf_counter()
model.fit(images, target, batch_size=128, epochs=2, verbose=0)
print(f"{2 * COUNT / (time.perf_counter() - start):.1f}")
