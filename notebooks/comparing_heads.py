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
# # Which head for ages?
#
# A head turns network outputs into a loss, a probability for each label, and an estimate. Ages have an order:
# mistaking 30 for 31 is better than for 60. A softmax does not know that; ordinal heads do. This notebook compares
# heads on drawn faces of people who do not exist, over several seeds, and tests the differences by person.

# %% tags=["parameters"]
HEADS = ("softmax", "regression", "coral", "dldl_v2")
SEEDS = (0, 1, 2)
EPOCHS = 10
PEOPLE, IMAGES = 150, 3000

# %%
from agebench.api import compare, train

data = {"target": "age", "image_size": 32, "source": {"people": PEOPLE, "images": IMAGES}}
runs = {}
for head in HEADS:
    for seed in SEEDS:
        runs[head, seed] = train(
            "data=demo",
            f"head={head}",
            model="small_cnn",
            data=data,
            seed=seed,
            optim={"lr": 2e-3},
            trainer={"max_epochs": EPOCHS},
            report=False,
        )

# %% [markdown]
# The table ranks by the mean absolute error in years (`mae`). The column of the difference to the best head has a 95%
# interval over people, and a p-value with Holm's correction. `always the median` is the estimate without any image.

# %%
compared = compare(*runs.values())
compared

# %%
compared.pictures()["ranking"]

# %% [markdown]
# A head also gives a probability for each age, not only an estimate. `nll` and `ece` in the table say how good these
# are. Here are the first test images of one run:

# %%
table = runs[HEADS[0], SEEDS[0]].test_predictions()
[{name: row[name] for name in ("name", "target", "point")} for row in table.rows[:5]]

# %% [markdown]
# Heads of your own take part in the same way: `python -m agebench.new head my_loss` writes one to start from, with
# its YAML and its test. Then `train("head=my_loss", config_dir="conf", ...)`.
