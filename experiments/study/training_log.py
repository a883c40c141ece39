"""What a training met: `metrics.jsonl`, a line a chunk of steps, and the same for TensorBoard."""

import json
import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from cradl_jax.storage.files import naming, write_text


class Log:
    """Writes scalars to `metrics.jsonl` and to TensorBoard.

    Both are written by the thread that calls, so that a full disk is an error and not a thread
    that is gone.
    """

    def __init__(self, run: Path, step: int):
        """Append to the run's log, forgetting what was logged after `step`."""
        self.path = run / "metrics.jsonl"
        kept = [line for line in read_history(run) if line["step"] <= step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.folder = run / "tensorboard"
        self.folder.mkdir(exist_ok=True)
        with naming(self.folder):
            self.board = EventsWriter(str(self.folder / "events"), f".from{step}")
        self._event(step + 1, session_log=SessionLog(status=SessionLog.START))

    def __call__(self, step: int, values: dict[str, float]) -> None:
        """Log `values`, named `train/loss` and so on, at `step`."""
        with naming(self.path), self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._event(step, summary=scalar(name, value))

    def _event(self, step: int, **content) -> None:
        with naming(self.folder):
            self.board.write_event(Event(wall_time=time.time(), step=step, **content))

    def flush(self) -> None:
        """Hand over to the system what was logged, before a checkpoint says that it happened."""
        with naming(self.folder):
            self.board.flush()

    def close(self) -> None:
        """Close TensorBoard's events."""
        with naming(self.folder):
            self.board.close()


def read_history(run: Path) -> list[dict]:
    """Read the lines of a run's `metrics.jsonl`, but for a last one that a kill cut short."""
    path = run / "metrics.jsonl"
    history = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            history.append(json.loads(line))
        except ValueError:
            break
    return history
