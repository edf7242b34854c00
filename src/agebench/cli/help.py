"""The help screen: how to call a command, and one line per choice of each config group."""

import re
from pathlib import Path

USES = {
    "train": (
        "python -m agebench.train [GROUP=CHOICE ...] [KEY=VALUE ...] [-m]",
        "Train a model, test it, and write a run directory. Several values for a key and -m run them all:\n"
        "  python -m agebench.train model=convnext data=cacd -m optim.lr=1e-4,1e-3",
    ),
    "calibrate": (
        "python -m agebench.calibrate run=FOLDER [coverage=SHARE] [KEY=VALUE ...]",
        "Fit a temperature, and ranges or label sets with a promised coverage, on the val part of a trained run.",
    ),
    "predict": (
        "python -m agebench.predict run=FOLDER images=FOLDER [KEY=VALUE ...]",
        "Predict the ages or classes of unlabelled images with a trained run, and write them as CSV.",
    ),
    "app": (
        "python -m agebench.app run=FOLDER [KEY=VALUE ...]",
        "Open a page on this machine: drop a photo, and see what one run or several make of it.",
    ),
    "export": (
        "python -m agebench.export run=FOLDER [format=onnx|pt2|safetensors] [KEY=VALUE ...]",
        "Write a trained run as one file, from the bytes of an image to the posterior; it does not need agebench.",
    ),
    "prepare": (
        "python -m agebench.prepare data=CHOICE [KEY=VALUE ...]",
        "Check a data set, download or generate it if possible, and pack its pixels.",
    ),
    "evaluate": (
        "python -m agebench.evaluate run=FOLDER [data=CHOICE] [KEY=VALUE ...]",
        "Test a trained run again, or on another data set: with the same classes, or with ages.",
    ),
    "score": (
        "python -m agebench.score predictions=FILE data=CHOICE [data/split=CHOICE] [KEY=VALUE ...]",
        "Test the predictions of any program, given as a CSV file, and write a run folder that compare ranks.",
    ),
    "report": (
        "python -m agebench.report run=FOLDER [level=light|full] [KEY=VALUE ...]",
        "Make the page and the pictures of a run, or make them again. Nothing is trained.",
    ),
    "audit": (
        "python -m agebench.audit data=CHOICE [data/split=CHOICE] [KEY=VALUE ...]",
        "Measure what a split leaks: identities in both train and test, and the accuracy they give without any image.",
    ),
}
MULTIRUN = "  -m, --multirun      run every combination of comma-separated values"
SWEEPING = ("train", "audit")  # the commands that take several values for a key
FLAGS = [
    "  --cfg job           print the composed config and stop",
    "  --config-dir DIR    a folder with your own YAML files, in the same groups",
    "  --hydra-help        Hydra's other flags",
]


def describe(path: Path) -> str:
    """Return the description of a YAML file: its first line, after Hydra's `# @package`."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("# @")]
    return lines[0].lstrip("# ").strip() if lines and lines[0].startswith("#") else ""


def show_help(command: str, conf: Path, config_name: str, *, own: Path | None = None) -> str:
    """Return the help text of a command.

    Args:
        command: One of USES.
        conf: The folder of the configs.
        config_name: The command's primary config; its comments explain the keys that belong to no group.
        own: The folder after --config-dir, whose choices are listed too.
    """
    usage, purpose = USES[command]
    flags = [MULTIRUN, *FLAGS] if command in SWEEPING else FLAGS
    lines = [f"usage: {usage}", "", purpose, "", "flags", *flags, ""]
    text = (conf / f"{config_name}.yaml").read_text(encoding="utf-8").partition("\nhydra:")[0]
    default = set(re.findall(r"^  - (\w+: \w+)$", text, re.MULTILINE))
    folders = sorted(p for p in conf.rglob("*") if p.is_dir() and p.relative_to(conf).parts[0] != "hydra")
    if command != "train":  # the other commands read the other groups from a run, or do not need them
        folders = [
            f
            for f in folders
            if f.relative_to(conf).parts[0] == "data"
            and command not in ("app", "calibrate", "predict", "export", "report")
        ]
    for folder in folders:
        group = folder.relative_to(conf).as_posix()
        files = [*folder.glob("*.yaml"), *(own / group).glob("*.yaml")] if own else folder.glob("*.yaml")
        choices = sorted((p for p in files if not p.stem.startswith("_")), key=lambda path: path.stem)
        if choices:
            lines.append(f"{group}=")
            for path in choices:
                is_default = " (default)" if f"{group}: {path.stem}" in default else ""
                lines.append(f"  {path.stem + '  ':<20}{describe(path)}{is_default}")
            lines.append("")
    lines.append(f"other keys ({config_name}.yaml)")
    body = [line for line in text.splitlines() if line and not line.startswith(("#", "defaults", "  - "))]
    lines += [f"  {line}" for line in body]
    return "\n".join(lines)
