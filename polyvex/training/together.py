"""Join the processes that train together, and refuse a start in which they would train apart."""

import os
from dataclasses import replace

import torch
from transformers import TrainingArguments

from polyvex.errors import RunError
from polyvex.processes import Processes, processes


def join() -> Processes:
    """Connect to the processes that a launcher started with this one.

    Raises:
        RunError: with the code ``process-environment``, if the launcher's variables are invalid; with the code
            ``processes-apart``, if Accelerate does not use as many processes as the launcher started: then each would
            train a model of its own in the same folder.
    """
    launched = processes()
    if launched.count == 1 and "LOCAL_RANK" in os.environ and "WORLD_SIZE" not in os.environ and not _only_cpu():
        raise RunError(
            "LOCAL_RANK is set, but WORLD_SIZE is not, so Accelerate cannot set up its processes. Unset LOCAL_RANK, "
            "or start the command with torchrun",
            code="process-environment",
        )
    used = TrainingArguments(output_dir=os.devnull, report_to=[], use_cpu=uses_cpu(launched))
    if used.world_size != launched.count:
        raise RunError(
            f"the launcher started {launched.count} processes, but Accelerate uses {used.world_size}, so each would "
            f"train a model of its own. Start one process, or check that Accelerate finds a device for each of them",
            code="processes-apart",
        )
    return replace(launched, devices=max(1, used.n_gpu))


def uses_cpu(joined: Processes) -> bool:
    """Whether Accelerate must be told to connect processes over the CPU: it does not find out by itself."""
    return joined.count > 1 and _only_cpu()


def wait(joined: Processes) -> None:
    """Wait until every process is here."""
    if joined.count > 1:
        torch.distributed.barrier()


def _only_cpu() -> bool:
    return not torch.accelerator.is_available()
