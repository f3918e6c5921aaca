"""What the import of a plugin costs and changes: seconds, printed text, and state that the whole process shares.

An import should define names and nothing else. A seed, a default dtype or a warning filter that is set at import
changes every later run, although no recipe names the plugin.
"""

import contextlib
import io
import logging
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from polyvex.printable import printable


@dataclass
class Watched:
    """What was observed; complete when the block ends. ``seconds`` is the time of the clock."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    effects: list[str] = field(default_factory=list)


@contextlib.contextmanager
def watch() -> Iterator[Watched]:
    """Observe a block. What it prints appears on stderr, so that it cannot damage the output of ``--json``."""
    watched, printed = Watched(), _Printed()
    before = {name: read() for name, read in STATE.items()}
    started, cpu = time.perf_counter(), time.process_time()
    try:
        with contextlib.redirect_stdout(printed):
            yield watched
    finally:
        watched.seconds, watched.cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        watched.effects += [f"changes {name}" for name, value in before.items() if STATE[name]() != value]
        if text := "".join(printed.parts).strip():
            watched.effects.append(f"prints {text.splitlines()[0][:80]!r}")


class _Printed(io.TextIOBase):
    """Passes text on to stderr. It works after the block too, for those who keep a reference to ``sys.stdout``."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def write(self, text: str) -> int:
        """Keep the text and pass it on, with control characters written as escapes."""
        self.parts.append(text)
        sys.stderr.write(printable(text))
        return len(text)


def _numpy_random() -> object:
    import numpy as np

    return [str(part) if not isinstance(part, np.ndarray) else part.tobytes() for part in np.random.get_state()]


def _numpy_settings() -> object:
    import numpy as np

    return np.geterr(), {name: str(value) for name, value in np.get_printoptions().items()}


def _torch_random() -> object:
    import torch

    return torch.get_rng_state().numpy().tobytes()


def _torch_settings() -> object:
    import torch

    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.is_grad_enabled(),
        torch.is_anomaly_enabled(),
        str(torch.tensor([1 / 3, 1e5])),  # as the print options say,
    )


def _torch(name: str) -> Callable[[], object]:
    def read() -> object:
        import torch

        return getattr(torch, name)()

    return read


def _functions() -> object:
    """Functions that a plugin could replace for everybody."""
    import torch

    owners: list[Any] = [torch.nn.functional, torch.nn.Module, torch.Tensor, torch.nn.Linear]
    return [
        {name: id(value) for name, value in vars(owner).items() if callable(value) and not name.startswith("__")}
        for owner in owners
    ]


def _matplotlib() -> object:
    matplotlib = sys.modules.get("matplotlib")
    return None if matplotlib is None else str(matplotlib.rcParams["backend"])


def _image_limits() -> object:
    from PIL import Image, ImageFile

    return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES


STATE: dict[str, Callable[[], object]] = {
    "torch's default dtype": _torch("get_default_dtype"),
    "torch's default device": _torch("get_default_device"),
    "torch's number of threads": _torch("get_num_threads"),
    "torch's random state": _torch_random,
    "torch's settings (deterministic algorithms, precision, gradients or print options)": _torch_settings,
    "functions of torch": _functions,
    "numpy's random state": _numpy_random,
    "numpy's settings (errors or print options)": _numpy_settings,
    "Python's random state": random.getstate,
    "the warning filters": lambda: [str(one) for one in warnings.filters],
    "the root logger (level or handlers)": lambda: (
        logging.root.level,
        logging.root.disabled,
        [id(handler) for handler in logging.root.handlers],
    ),
    "os.environ": lambda: dict(os.environ),
    "the working directory": os.getcwd,
    "sys.path": lambda: list(sys.path),
    "signal handlers": lambda: [signal.getsignal(one) for one in sorted(signal.valid_signals())],
    "sys.excepthook": lambda: sys.excepthook,
    "the recursion limit": sys.getrecursionlimit,
    "matplotlib's backend": _matplotlib,
    "Pillow's limits": _image_limits,
}
"""State of the process by a name for messages, each with a function that gives a value to compare."""
