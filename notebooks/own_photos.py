# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own photos
#
# Train on photos of your own, sorted into one folder per class, and predict new ones. This notebook draws a few
# pictures, so that it runs as it is. Replace `PHOTOS` by your folder:
#
# ```
# photos/cat/1.jpg   photos/cat/2.jpg ...
# photos/dog/a.png ...
# ```
#
# For photos with ages, or with names of people, write a table instead: `data=table data.root=photos.csv` with the
# columns `path`, `age` and `identity`. Photos of one person are then never in both train and test (`docs/data.md`).

# %% tags=["parameters"]
PHOTOS = "photos"
EPOCHS = 20

# %%
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from agebench.api import train


def draw(kind: str, seed: int) -> Image.Image:
    """Return a circle or a square at a random place, in random colours."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (64, 64), tuple(rng.integers(0, 120, 3).tolist()))
    left, top, side = rng.integers(4, 24, 3).tolist()
    box, colour = [left, top, left + side + 14, top + side + 14], tuple(rng.integers(140, 256, 3).tolist())
    pen = ImageDraw.Draw(picture)
    (pen.ellipse if kind == "circle" else pen.rectangle)(box, fill=colour)
    return picture


if not Path(PHOTOS).exists():  # photos of your own are used as they are
    for kind in ("circle", "square"):
        (Path(PHOTOS) / kind).mkdir(parents=True)
        for i in range(150):
            draw(kind, 1000 * (kind == "square") + i).save(Path(PHOTOS) / kind / f"{i}.png")

# %% [markdown]
# ## Train
#
# `data.image_size` is the side to which photos are resized. With an internet connection, a network that has seen
# ImageNet needs far fewer photos: `model="timm"`, `model.model_name="convnext_tiny.fb_in1k"`,
# `model.pretrained=true`, `data.image_size=224`, and `augment="standard"`.

# %%
run = train(
    "data=folder",
    f"data.root={PHOTOS}",
    "data.image_size=32",
    model="small_cnn",
    augment="digits",
    trainer={"max_epochs": EPOCHS},
    optim={"lr": 2e-3},
)
run

# %% [markdown]
# ## The mistakes
#
# The page of the run shows the images with the largest errors, and what the network looked at.

# %%
run.page

# %%
run.pictures["confusion"]

# %% [markdown]
# ## New photos
#
# A folder, a file, a list of files, PIL images or arrays. An image that cannot be read has a `problem` and no label.

# %%
answers = run.predict([draw("circle", 5000), draw("square", 5001), "missing.jpg"])
answers

# %%
answers.column("label")
