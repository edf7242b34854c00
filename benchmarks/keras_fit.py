"""Keras' own fit of the slides' CNN, in an interpreter that has tensorflow; prints images/s, for MNIST accuracy too.

The network as the slides describe it, 665,738 parameters, batch 128, Adam, categorical cross-entropy. On images of
noise, or on MNIST's 60,000 with the accuracy on its 10,000; the first epoch, in which the graph is built, is not timed.
"""

import argparse
import gzip
import os
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras
import numpy as np
from keras import layers


def read(path: Path, header: int) -> np.ndarray:
    """Return the bytes after the header of one of MNIST's files."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def mnist(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images in [0, 1], shape (N, 28, 28, 1), and digits."""
    images = read(folder / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
    return images.astype(np.float32) / 255, read(folder / f"{part}-labels-idx1-ubyte.gz", 8)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--mnist", type=Path, help="folder of MNIST's four files, else noise")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--seed", type=int, default=0)
given = parser.parse_args()
keras.utils.set_random_seed(given.seed)
if given.mnist:
    images, target = mnist(given.mnist, "train")
else:
    images = np.random.default_rng(0).random((6_000, 28, 28, 1), dtype=np.float32)
    target = np.arange(6_000) % 10
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
model.fit(images, target, batch_size=128, epochs=given.epochs - 1, verbose=0)
speed = (given.epochs - 1) * len(images) / (time.perf_counter() - start)
if given.mnist:
    print(f"{model.evaluate(*mnist(given.mnist, 't10k'), verbose=0)[1]:.4f}")
print(f"{speed:.1f}")
