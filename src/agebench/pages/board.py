"""Adds the pictures of a report to TensorBoard, in an event file of the run folder, without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image


def add_pictures(folder: Path, pictures: Sequence[Path], *, step: Any) -> None:
    """Write an event file with one image per PNG file under `report/`, if the run has event files.

    Args:
        folder: The run folder.
        pictures: PNG files.
        step: The optimizer step of the images; 0 if it is no number.
    """
    if not pictures or not any(folder.glob("events.out.tfevents*")):
        return
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder), filename_suffix=".report")
    for path in pictures:
        with Image.open(path) as image:
            width, height = image.size
        png = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
        value = Summary.Value(tag=f"x_report/{path.stem}", image=png)
        event = Event(wall_time=path.stat().st_mtime, step=step if isinstance(step, int) else 0)
        event.summary.CopyFrom(Summary(value=[value]))
        writer.add_event(event)
    writer.close()
