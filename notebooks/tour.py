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
# # A tour of agebench
#
# Train a network, read its results, predict new images, and compare two models honestly. Everything runs on a CPU in
# a few minutes. Nothing is downloaded: the digits are part of scikit-learn.
#
# Install agebench first: `docs/commands.md` in the repository says how.

# %% tags=["parameters"]
EPOCHS = 5
SEEDS = (0, 1, 2)

# %%
from agebench.api import compare, load, train

# %% [markdown]
# ## Train
#
# `data`, `model`, `head`, `optim`, `augment`, ... are groups, and each has choices. All other settings are keys, such
# as `trainer.max_epochs`. `python -m agebench.train --help` lists them.

# %%
run = train(data="digits", model="small_cnn", trainer={"max_epochs": EPOCHS})

# %% [markdown]
# A run shows its test metrics with 95% intervals. An interval says how much the metric would vary with other test
# images.

# %%
run

# %% [markdown]
# Its folder has everything: checkpoints, predictions, the split, the metrics of each epoch, and a page with all
# pictures.

# %%
print(run.folder)
print(run.page)

# %%
run.history()

# %%
run.pictures["curves"]

# %%
run.pictures["confusion"]

# %% [markdown]
# ## Predict
#
# `predict` takes a folder, files, PIL images or arrays. The network is loaded once, at the first call. `load(FOLDER)`
# gives the same run in another session.

# %%
import numpy as np
from PIL import Image, ImageDraw

canvas = Image.new("L", (80, 80))
ImageDraw.Draw(canvas).line([(40, 8), (40, 72)], fill=255, width=14)  # a one
upside_down = np.asarray(canvas)[::-1]

load(run.folder).predict([canvas, upside_down])

# %% [markdown]
# ## Compare
#
# One run per model says little: another seed gives another result. `compare` groups runs that differ only in the
# seed, and tests whether the difference is more than chance.

# %%
runs = [
    train(data="digits", model=model, seed=seed, trainer={"max_epochs": EPOCHS}, report=False)
    for model in ("mlp", "small_cnn")
    for seed in SEEDS
]
compared = compare(*runs)
compared

# %%
compared.pictures()["ranking"]

# %% [markdown]
# `compared.rows` has the numbers, and `compared.write("comparison")` writes a page, Markdown and CSV.

# %%
[(row["rank"], row["params"], row["metrics"]["test/accuracy"]["mean"]) for row in compared.rows]
