"""Tensors that hold values in memory and report another device, to find device errors without a second device.

Every operation runs on the CPU, so code that reads values works. An operation that combines a tensor of the other
device with one that was created on the CPU raises :class:`MixedDevicesError`, as a GPU would. As there, a CPU tensor
without dimensions takes part in any operation, and CPU indices select from tensors of any device.
"""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

M = TypeVar("M", bound=nn.Module)

DEVICE = torch.device("meta", 1)
"""The device that the tensors report. Factories accept it on every machine. The index tells it from the device on which
models are planned, so that values that a library caches by device are not confused."""

COPIES = {"_to_copy", "copy_"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class MixedDevicesError(Exception):
    """An operation combined tensors of two devices."""


class Elsewhere(Tensor):
    """A tensor that reports :data:`DEVICE`; ``held`` has the values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Elsewhere":
        """Wrap a tensor, with the same shape, strides and dtype."""
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held.detach()
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation on the values."""
        return _run(func, args, dict(kwargs or {}))

    def tolist(self) -> Any:
        """The values; torch does not offer this method to subclasses."""
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse, as a tensor of a GPU does."""
        if force:
            return self.held.numpy()
        raise MixedDevicesError("numpy() needs a tensor on the CPU; call .cpu() first")


class _OtherDevice(TorchDispatchMode):
    """Creates tensors that are requested on :data:`DEVICE` as :class:`Elsewhere`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, dict(kwargs or {}))


@contextmanager
def other_device() -> Iterator[None]:
    """Run a block in which :data:`DEVICE` has memory."""
    # torch has no autocast for this device, and code that switches it off would fail here only.
    autocast = torch.autocast

    def without_autocast(device_type: str, *args: Any, **kwargs: Any) -> AbstractContextManager[Any]:
        return nullcontext() if device_type == DEVICE.type else autocast(device_type, *args, **kwargs)

    with (
        _OtherDevice(),
        torch.no_grad(),
        patch.object(torch, "is_autocast_enabled", lambda *_: False),
        patch.object(torch, "autocast", without_autocast),
    ):
        yield


def moved(module: M) -> M:
    """A copy of a module with all parameters and buffers on the other device."""
    copied = copy.deepcopy(module)
    for part in copied.modules():
        for values in (part._parameters, part._buffers):
            for name, value in values.items():
                values[name] = None if value is None else Elsewhere(value)  # type: ignore[assignment]
    return copied


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name.split("::")[1]
    _refuse_mixture(name, args, kwargs)
    wanted = kwargs.get("device")
    if wanted is not None:
        kwargs["device"] = torch.device("cpu")
        there = torch.device(wanted).type == DEVICE.type
    elif name in COPIES and args:
        there = isinstance(args[0], Elsewhere)
    else:
        there = any(isinstance(leaf, Elsewhere) for leaf in tree_leaves((args, kwargs)))
    result = func(*_values(args), **_values(kwargs))
    if name.endswith("_") and isinstance(args[0], Tensor):
        return args[0]
    return tree_map_only(Tensor, Elsewhere, result) if there else result


def _refuse_mixture(name: str, args: Any, kwargs: dict[str, Any]) -> None:
    if name in COPIES:
        return
    # CPU indices select from any tensor, but indices of the other device do not select from the CPU.
    checked = [args[0], *args[2:]] if name in INDEXING and isinstance(args[0], Elsewhere) else args
    tensors = [leaf for leaf in tree_leaves((checked, kwargs)) if isinstance(leaf, Tensor)]
    here = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.ndim > 0]
    if here and len(here) < len(tensors) and any(isinstance(tensor, Elsewhere) for tensor in tensors):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in here)
        raise MixedDevicesError(f"torch operation '{name}' combines them with a CPU tensor of shape {shapes}")


def _values(tree: Any) -> Any:
    return tree_map_only(Elsewhere, lambda tensor: tensor.held, tree)
