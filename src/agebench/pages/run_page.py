"""The page of a run, report/index.html: what was learned from what, how well, where it fails, and how to repeat it."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from agebench.files import write_text
from agebench.pages import words
from agebench.pages.html import render
from agebench.pages.material import Material
from agebench.pages.pictures import Picture
from agebench.pages.thumbnails import picture_uri, thumbnail
from agebench.report.outcome import Array, Outcome
from agebench.report.report_images import ReportImages
from agebench.report.selection import estimated_labels, least_certain, most_certain, worst_mistakes
from agebench.report.style import label_ticks
from agebench.runs.command_line import for_shell
from agebench.runs.folder import report_command
from agebench.runs.read import mapping, number
from agebench.text import format_duration

# Settings of the training that the page shows, if they are set.
SETTINGS = {
    "optim.lr": "learning rate",
    "optim.layer_decay": "layer decay",
    "data.batch_size": "batch size",
    "augment.mixup": "mixup (alpha)",
    "augment.cutmix": "CutMix (alpha)",
    "ema.decay": "average of weights (decay)",
    "swa.start": "average of weights (from this share of the epochs on)",
    "teacher.run": "teacher",
}
MAX_SHEET = 12  # images of a sheet
MAX_SAMPLE = 12  # train images
MAX_LISTED = 10  # names of missing and broken images
BALANCE_WIDTH, BALANCE_HEIGHT = 720, 44  # px of the bars of a part

SHEETS = (
    ("worst", "Worst mistakes", "The images whose answer is furthest from the truth.", worst_mistakes),
    ("certain", "Most certain, and right", "The images that the network got right with the least doubt.", most_certain),
    ("uncertain", "Least certain", "The images about which the network is in the greatest doubt.", least_certain),
)


def write_page(run: Material, drawn: Sequence[tuple[Picture, Path]], *, level: str) -> Path:
    """Write report/index.html of a run and return its path.

    Args:
        run: The files of the run.
        drawn: The pictures that were drawn, with their files.
        level: `light` or `full`.
    """
    run.report.mkdir(exist_ok=True)
    return write_text(run.report / "index.html", page(run, drawn, level=level))


def page(run: Material, drawn: Sequence[tuple[Picture, Path]], *, level: str) -> str:
    """Return the page of a run as HTML."""
    sections: dict[str, list[dict[str, Any]]] = {}
    for picture, path in drawn:
        if not picture.on_page:
            continue
        shown = {
            "uri": picture_uri(path),
            "caption": picture.caption_of(run),
            "photos": picture.photos,
            "name": picture.name,
        }
        sections.setdefault(picture.section, []).append(shown)
    return render(
        "run.html",
        title=run.title or run.folder.name,
        folder=run.folder.name,
        status=run.run.status,
        verdict=words.verdict(run),
        warnings=words.warnings(run),
        pictures=sections,
        data=_data(run),
        model={"stages": stages(run.layers), "facts": _model_facts(run)},
        training=_training_facts(run),
        metrics=words.metric_rows(run),
        decision=mapping(run.run.result("decision")),
        group_notes=list(mapping(run.run.result("groups")).get("notes") or ()),
        sheets=list(_sheets(run)),
        full_command=None if level == "full" else _full_command(run),
        repeat=_repeat(run),
    )


def _data(run: Material) -> dict[str, Any]:
    counts = mapping(run.run.result("data"))
    parts = [
        {"name": part, "images": int(number(counts.get(part)) or 0), "identities": run.identities.get(part)}
        for part in ("train", "val", "test")
        if number(counts.get(part))  # a split for tests only has no train and no val part
    ]
    return {
        "parts": parts,
        "with_identities": bool(run.identities),
        "protocol": run.protocol,
        "leak": words.leak_note(run),
        "balance": _balance(run),
        "sample": _sample(run),
        "missing": run.missing[:MAX_LISTED],
        "broken": list(run.broken.items())[:MAX_LISTED],
        "num_missing": len(run.missing),
        "num_broken": len(run.broken),
    }


def _balance(run: Material) -> dict[str, Any] | None:
    """Return the bars of the class balance: the share of each label in each part; None without split.csv."""
    outcome = run.outcome
    if not run.counts:
        return None
    names = list(outcome.label_names) if outcome is not None else sorted(set().union(*run.counts.values()))
    if len(names) < 2:
        return None
    shares = {part: [counts[name] / counts.total() for name in names] for part, counts in run.counts.items()}
    top = max(max(each) for each in shares.values()) or 1.0
    step = BALANCE_WIDTH / len(names)
    parts = [
        {
            "name": part,
            "bars": [
                {
                    "x": round(i * step + 0.1 * step, 2),
                    "height": round(BALANCE_HEIGHT * share / top, 2),
                    "label": f"{name}: {run.counts[part][name]:,}",
                }
                for i, (name, share) in enumerate(zip(names, each, strict=True))
            ],
        }
        for part, each in shares.items()
    ]
    values = outcome.values if outcome is not None else np.arange(len(names))
    longest = max(map(len, names))
    most = max(2, min(80, int(BALANCE_WIDTH / (9 * max(longest, 1.05)))))
    ticks = [
        {"x": round((i + 0.5) * step, 2), "name": names[i]}
        for i in label_ticks(values, ordered=outcome is not None and outcome.ordered, most=most)
    ]
    small = " small" if len(ticks) > 40 else ""
    return {
        "parts": parts,
        "ticks": ticks,
        "small": small,
        "many": " many" if 18 * len(ticks) * longest > BALANCE_WIDTH else "",  # has no room for a larger font
        "width": BALANCE_WIDTH,
        "height": BALANCE_HEIGHT,
        "bar": 0.8 * step,
    }


def _sample(run: Material) -> list[dict[str, Any]]:
    """Return train images with their labels, and how the network sees them after augmentation."""
    images, outcome = run.images, run.outcome
    if images is None or outcome is None or (images.sample_target >= len(outcome.label_names)).any():
        return []
    return [
        {
            "uri": thumbnail(pixels),
            "after": thumbnail(images.after[i]) if len(images.after) > i else None,
            "label": outcome.label_names[images.sample_target[i]],
        }
        for i, pixels in enumerate(images.before[:MAX_SAMPLE])
    ]


def stages(layers: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Return the stages of a network: consecutive layers whose output has the same size.

    Args:
        layers: The rows of layers.csv.
    """
    known = [(size, row) for row in layers if (size := _size(row["output_shape"])) is not None]
    total = sum(_count(row) for _, row in known) or 1
    found = []
    for _, group in groupby(known, key=lambda each: each[0][0]):
        members = list(group)
        parameters = sum(_count(row) for _, row in members)
        kinds = list(dict.fromkeys(row["type"] for _, row in members))
        found.append(
            {
                "size": members[-1][0][1],
                "layers": [row["layer"] for _, row in members],
                "kinds": ", ".join(kinds[:4]) + (", ..." if len(kinds) > 4 else ""),
                "count": len(members),
                "parameters": f"{parameters:,}",
                "share": round(100 * parameters / total, 1),
            }
        )
    return found


def _thousands(number: str) -> str:
    return f"{int(number):,}" if number.isdecimal() else number


def _count(row: dict[str, str]) -> int:
    return int(row["parameters"]) if row["parameters"].isdecimal() else 0


def _size(shape: str) -> tuple[tuple[str, ...], str] | None:
    """Return a key that is equal for the layers of a stage, and the output size in words, for `(B, 32, 14, 14)`.

    It is None for a scalar or an unknown shape.
    """
    numbers = [part.strip() for part in shape.strip("()").split(",") if part.strip()][1:]
    if len(numbers) == 3:
        channels, *sides = numbers if numbers[1] == numbers[2] else [numbers[2], *numbers[:2]]  # NHWC, as in Swin
        return ("image", *sides), f"{sides[0]} × {sides[1]}, {channels} channels"
    if len(numbers) == 2:
        return ("tokens", *numbers), f"{numbers[0]} tokens of {numbers[1]} numbers"
    return (("vector", *numbers), f"{_thousands(numbers[0])} numbers") if numbers else None


def _model_facts(run: Material) -> list[tuple[str, str]]:
    params = mapping(run.run.result("params"))
    facts = [("network", run.model), ("head", run.run.choices.get("head", ""))]
    total, trainable = (number(params.get(key)) for key in ("total", "trainable"))
    if total is not None:
        facts.append(("parameters", f"{total:,.0f}"))
        if trainable is not None and trainable < total:
            facts.append(("of which trained", f"{trainable:,.0f}"))
    return [(name, text) for name, text in facts if text]


def _training_facts(run: Material) -> list[tuple[str, str]]:
    best, timing, config = (mapping(run.run.result(key)) for key in ("best", "timing", "config"))
    config, choices = run.run.config, run.run.choices
    facts: list[tuple[str, str]] = []
    epochs, chosen, value = (number(each) for each in (run.run.result("epochs"), best.get("epoch"), best.get("value")))
    if epochs is not None:
        facts.append(("epochs", f"{epochs:.0f}"))
    if chosen is not None and best.get("tested") == "best":
        facts.append(("tested epoch", f"{chosen + 1:.0f}, the best by {best.get('monitor')} ({value:.4g})"))
    elif best.get("tested") == "last":
        facts.append(("tested epoch", "the last"))
    if (seconds := number(timing.get("fit_s"))) is not None:
        facts.append(("training time", format_duration(seconds) if seconds >= 60 else f"{seconds:.1f} s"))
    if (rate := number(timing.get("train_images_per_s"))) is not None:
        facts.append(("speed", f"{rate:,.0f} images/s"))
    facts.append(("device", _device(run)))
    facts += [(key, str(choices.get(key, ""))) for key in ("optim", "scheduler", "augment")]
    if choices.get("recipe", "none") != "none":
        facts.append(("recipe", str(choices["recipe"])))
    for key, name in SETTINGS.items():
        if config.get(key) is not None:
            facts.append((name, f"{config[key]}"))
    return [(name, text) for name, text in facts if text]


def _device(run: Material) -> str:
    device, threads = run.run.result("device"), number(run.run.result("threads"))
    return f"{device}, {threads:.0f} threads" if device and threads is not None else str(device or "")


def _sheets(run: Material) -> Iterator[dict[str, Any]]:
    """Yield the sheets of test images: title, meaning, and the images with what is true and what was answered."""
    outcome, images = run.outcome, run.images
    if outcome is None or images is None or not np.isfinite(outcome.posterior).all():
        return
    for name, title, meaning, choose in SHEETS:
        cards = [_card(outcome, row, pixels) for row, pixels in _kept(images, choose(outcome))]
        if name == "worst" and not outcome.ordered:
            meaning = "The mistakes of which the network was most certain."
        if cards:
            yield {"name": name, "title": title, "meaning": meaning, "cards": cards}


def _kept(images: ReportImages, rows: Array) -> Iterator[tuple[int, Array]]:
    kept, pixels = images.find(rows)
    return zip(kept[:MAX_SHEET].tolist(), pixels[:MAX_SHEET], strict=True)


def _card(outcome: Outcome, row: int, pixels: Array) -> dict[str, Any]:
    predicted, target = int(estimated_labels(outcome)[row]), int(outcome.target[row])
    names, name = outcome.label_names, str(outcome.names[row])
    answer = f"{outcome.point[row]:.1f}" if outcome.unit == "years" else names[predicted]
    return {
        "uri": thumbnail(pixels),
        "name": name,
        "file": name.rstrip("/").rpartition("/")[2],
        "target": names[target],
        "answer": answer,
        "probability": None if outcome.ordered else round(100 * float(outcome.posterior[row, predicted]), 1),
        "right": predicted == target,
    }


def _full_command(run: Material) -> str:
    return f"{report_command(run.folder, level='full')}{' trust=true' if run.own_code else ''}"


def _line(run: Material) -> str:
    if not run.line:
        return ""
    command = "evaluate" if run.run.evaluated else "score" if run.run.scored else "train"
    trust = ["trust=true"] if run.own_code and command == "evaluate" else []
    return " ".join([f"python -m agebench.{command}", *map(for_shell, [*run.line, *trust])])


def _repeat(run: Material) -> dict[str, Any]:
    results = run.run.results
    versions = mapping(results.get("versions"))
    keys = (
        ("config", "hash of the settings"),
        ("data_sha", "hash of the images and labels"),
        ("split_sha", "hash of the list of test images"),
        ("weights_sha", "hash of the tested weights"),
        ("seed", "seed"),
        ("git", "git commit of agebench"),
    )
    return {
        "line": _line(run),
        "outside": list(run.own_code),
        "facts": [
            *((text, str(results[key])) for key, text in keys if results.get(key) is not None),
            *((f"hash of the code of {name}", sha) for name, sha in run.own_code.items()),
        ],
        "versions": [(str(name), str(version)) for name, version in versions.items()],
        "folder": str(run.folder),
    }
