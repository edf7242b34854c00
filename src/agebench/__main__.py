"""`agebench COMMAND ...` and `python -m agebench COMMAND ...`: the same as `python -m agebench.COMMAND ...`."""

import runpy
import sys

COMMANDS = {
    "train": "train a model, test it, write a run directory; -m runs a sweep",
    "evaluate": "test a trained run again, or on another data set",
    "calibrate": "fit ranges with a promised coverage on the val part of a trained run",
    "predict": "predict ages or classes of new images and write them as CSV",
    "app": "open a page on this machine: drop a photo, see what the run makes of it",
    "prepare": "check a data set, download it if possible, pack its pixels",
    "export": "write a trained run as one ONNX file, or as a PyTorch program",
    "audit": "measure what a split leaks, without opening an image",
    "score": "test the predictions of any program, given as a CSV file",
    "report": "make the page and the pictures of a run, or make them again",
    "compare": "compare runs over seeds, with intervals of their differences",
    "new": "write an own backbone, head, data set, augmentation, experiment or project to start from",
    "lecture": "draw what a lecture explains, such as convolution and pooling step by step",
}


def main() -> None:
    """Run the command that is the first argument."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in ("", "-h", "--help"):
        print("usage: agebench COMMAND [GROUP=CHOICE ...] [KEY=VALUE ...]\n")
        print("\n".join(f"  {name:<11}{purpose}" for name, purpose in COMMANDS.items()))
        print("\nagebench COMMAND --help describes a command")
        return
    if command == "--version":
        from agebench import __version__

        print(__version__)
        return
    if command not in COMMANDS:
        from agebench.errors import did_you_mean

        print(
            f"agebench: unknown command {command!r}{did_you_mean(command, COMMANDS)}; known: {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        sys.exit(2)
    del sys.argv[1]
    sys.path.insert(0, "")  # as `python -m` does, so that a module in the working directory can be imported
    # Run as a module, so that Lightning starts DDP ranks with `python -m agebench.COMMAND` too.
    runpy.run_module(f"agebench.{command}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
