"""A run on two machines, the second of which does not come."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")


def test_it_says_what_it_waits_for_and_can_be_interrupted(tmp_path) -> None:
    line = [sys.executable, "-m", "agebench.train", "data=digits", "trainer.num_nodes=2", "trainer.accelerator=cpu"]
    line += ["report=false", "hydra.run.dir=out", f"paths.data={tmp_path}"]
    waits = "waiting for 1 more machines: run the same command there with NODE_RANK=1, 2, ..."

    with subprocess.Popen(line, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = next((text for text in process.stderr if waits in text), "")
        time.sleep(3)  # until it has opened its port
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)

    assert said
    assert process.returncode == 1
    assert "Traceback" not in rest
    assert rest.splitlines()[-1].startswith("agebench train: interrupted while it waited for another process; finished")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["status"] == "interrupted"
