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
# # Age decades from CACD, step by step as in the lecture
#
# The lecture sorts the photos of CACD by decade, takes 200 of each of six decades, fine-tunes ConvNeXt-Tiny for five
# epochs, and looks at the curves, the confusion matrix and the features. Each step is here, with the setting that
# does it.
#
# **Data.** CACD (163,446 photos of celebrities) must be downloaded manually from its authors: `docs/data.md` says
# what and where. Put `CACD2000.tar.gz` and `celebrity2000_meta.mat` into `data/cacd`, or set the environment variable
# `AGEBENCH_DATA` to the folder that contains `cacd`. **Without it, this notebook draws faces of people who do not
# exist** and trains a small network from scratch. The steps are the same; the numbers are not comparable.

# %% tags=["parameters"]
EPOCHS = 5
PEOPLE, IMAGES = 150, 3000  # of the drawn faces
PER_DECADE = 200

# %%
import os
from pathlib import Path

from agebench.api import compare, train

folder = Path(os.environ.get("AGEBENCH_DATA", "data")) / "cacd"
HAS_CACD = folder.is_dir() and any(folder.glob("CACD2000*"))
print("photos of CACD" if HAS_CACD else "drawn faces")

# %% [markdown]
# ## Step 1: labels and split
#
# `data.target=decade` sorts by decade. `data/split=lecture` takes 200 random images of each decade and divides them
# 80/20. The lecture validates on its test images, and so does this split.

# %%
if HAS_CACD:
    data = {"split": "lecture", "target": "decade", "image_size": 224, "normalise": "imagenet"}
    choices = ["data=cacd", "model=convnext"]  # ConvNeXt-Tiny, pretrained on ImageNet; downloads its weights once
    rate = 1e-4
else:
    data = {"split": "lecture", "target": "decade", "image_size": 32}
    data["source"] = {"people": PEOPLE, "images": IMAGES}
    choices = ["data=demo", "model=small_cnn"]
    rate = 2e-3

# %% [markdown]
# ## Steps 2 and 3: augmentation and training
#
# `augment=cacd` is the lecture's: flip, brightness and contrast by up to 20%. Adam trains for five epochs with
# batches of 32. `test_checkpoint=last` tests the last epoch: because the validation images are the test images, the
# best epoch would be selected on the test.

# %%
run = train(
    *choices,
    f"data.split.per_label={PER_DECADE}",
    data=data,
    augment="cacd",
    optim={"lr": rate},
    trainer={"max_epochs": EPOCHS},
    test_checkpoint="last",
)
run

# %% [markdown]
# ## Step 4: curves

# %%
run.pictures["curves"]

# %% [markdown]
# ## Step 5: the heat map of true and predicted decades
#
# Most errors are one decade off: `within_1` counts those as right.

# %%
run.pictures["confusion"]

# %%
run.metrics["accuracy"], run.metrics["within_1"]

# %% [markdown]
# ## Step 6: features
#
# The lecture shows the features before the classifier in two dimensions, by PCA and t-SNE. `python -m agebench.report
# run=FOLDER level=full` draws both, for the train images too.

# %%
list(run.pictures)

# %% [markdown]
# ## What the lecture's split does not show: a leak
#
# The images are divided at random, so most people are in both train and test. A network may then recognise the person
# instead of the age. agebench checks this in every run, without any image:

# %%
run.results["leak"]

# %% [markdown]
# A split by person is the honest test. Its accuracy is usually lower.

# %%
honest = train(
    *choices,
    "data/split=identity",
    data={key: value for key, value in data.items() if key != "split"},
    augment="cacd",
    optim={"lr": rate},
    trainer={"max_epochs": EPOCHS},
    report=False,
)
compare(run, honest)
