"""Keras's `fit` of the slides' CNN, for an interpreter with tensorflow; prints images/s, and for MNIST the accuracy.

The network is the one of the slides: 665,738 parameters, batch 128, Adam, categorical cross-entropy. The data are
noise, or MNIST's 60,000 images with the accuracy on its 10,000. The first epoch builds the graph and is not timed.
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
    """Return the bytes after the header of an MNIST file."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def mnist(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images in [0, 1], shape (N, 28, 28, 1), and digits."""
    images = read(folder / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
    return images.astype(np.float32) / 255, read(folder / f"{part}-labels-idx1-ubyte.gz", 8)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--mnist", type=Path, help="the folder of MNIST's four files (default: noise)")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
keras.utils.set_random_seed(args.seed)
if args.mnist:
    images, target = mnist(args.mnist, "train")
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
model.fit(images, target, batch_size=128, epochs=args.epochs - 1, verbose=0)
speed = (args.epochs - 1) * len(images) / (time.perf_counter() - start)
if args.mnist:
    print(f"{model.evaluate(*mnist(args.mnist, 't10k'), verbose=0)[1]:.4f}")
print(f"{speed:.1f}")
