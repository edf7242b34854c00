"""`agebench VERB ...` and `python -m agebench VERB ...`: the same as `python -m agebench.VERB ...`."""

import runpy
import sys

VERBS = {
    "train": "train a model, test it, write a run directory; -m runs a sweep",
    "evaluate": "test a trained run again, or on another data set",
    "predict": "say ages or classes for images of your own, as CSV",
    "prepare": "check a data set, fetch what can be, pack its pixels",
    "export": "write a trained run as one ONNX file, or as a PyTorch program",
    "audit": "say what a split leaks, without opening an image",
    "compare": "put runs side by side, over seeds, with intervals of their differences",
}


def main() -> None:
    """Run the verb named first on the command line."""
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb in ("", "-h", "--help"):
        print("usage: agebench VERB [GROUP=CHOICE ...] [KEY=VALUE ...]\n")
        print("\n".join(f"  {name:<10}{purpose}" for name, purpose in VERBS.items()))
        print("\nagebench VERB --help tells more")
        return
    if verb == "--version":
        from agebench import __version__

        print(__version__)
        return
    if verb not in VERBS:
        from agebench.errors import did_you_mean

        print(
            f"agebench: there is no verb {verb!r}{did_you_mean(verb, VERBS)}; known: {', '.join(VERBS)}",
            file=sys.stderr,
        )
        sys.exit(2)
    del sys.argv[1]
    sys.path.insert(0, "")  # as `python -m` does: a network of one's own is found in the folder one starts from
    # As a module of its own, so that a DDP rank is started with the same line (python -m agebench.VERB).
    runpy.run_module(f"agebench.{verb}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
