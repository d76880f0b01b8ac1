"""A second device on machines without a GPU: torch believes in a CUDA device whose tensors refuse to meet those of the CPU.

A tensor of the pretended device wraps one of the CPU, where everything is computed: the numbers are the CPU's. To autograd it
is a meta tensor, since torch without CUDA cannot differentiate on a CUDA device; to Python it says `cuda:0`. What mixes devices
raises what CUDA would raise, and what CUDA takes all the same (scalars of the CPU, a CUDA tensor indexed by the CPU) passes.

Half precision is not pretended: with bfloat16 models take other kernels, which only a real GPU has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar
from unittest import mock
from weakref import WeakValueDictionary

import torch
import torch._dynamo  # so that its tables hold torch's own functions, not those that stand in for them here
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA, META = torch.device("cuda:0"), torch.device("meta")
RealGenerator = torch.Generator
aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXED = {
    aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default, aten._unsafe_index_put.default,
}  # fmt: skip
TAKE_SCALARS = {aten.fill_.Tensor, aten.fill.Tensor, aten.masked_fill.Tensor, aten.masked_fill_.Tensor}
READS = {  # the host waits for the device to hear a value, or how large the result is
    aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.masked_select.default,
    aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default, aten.bincount.default,
    aten.repeat_interleave.Tensor,
}  # fmt: skip


class PretendedTensor(Tensor):
    """A tensor of the CPU that says it is on `cuda:0`."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> PretendedTensor:
        about: dict[str, Any] = {"dtype": inner.dtype, "layout": inner.layout, "device": META}
        if inner.layout is torch.strided:
            about |= {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        return Tensor._make_wrapper_subclass(cls, inner.shape, **about)

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self) -> list[Any]:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to host memory first."
        )

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"{self.inner!r} on {CUDA}"

    # `Module.to` takes what has these for a subclass whose parameters are swapped, not assigned: they stay the same objects.
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(tensors: dict[str, Tensor], *rest: Any) -> PretendedTensor:
        return PretendedTensor(tensors["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Where the mode is not looking, nothing is counted."""
        return _run(func, args, kwargs or {}, None)


class PretendedGenerator(RealGenerator):
    """A generator of the CPU for tensors of the pretended device; asked for another device, a real one."""

    device = CUDA  # type: ignore[assignment]
    alive: ClassVar[WeakValueDictionary[int, RealGenerator]] = WeakValueDictionary()  # operations get another object

    def __new__(cls, device: torch.device | str = "cpu") -> RealGenerator:  # type: ignore[misc]
        if torch.device(device).type != "cuda":
            return RealGenerator(device)
        generator = super().__new__(cls)
        cls.alive[generator._cdata] = generator
        return generator


class PretendedDevice(TorchDispatchMode):
    """Every operation of torch while the device is pretended.

    `reads` counts those for whose result the host waits, by name; `uploads` counts tensors that go from the host to the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.uploads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self)

    def count(self, func: Any, args: Any, kwargs: dict[str, Any], on_device: bool) -> None:
        """Count what an operation on tensors of which one at least is, or will be, on the device makes the host do."""
        indices = [index for index in args[1] if index is not None] if func in INDEXED else []
        self.uploads += sum(on_device and not isinstance(index, PretendedTensor) for index in indices)
        if func in COPIES:
            here, there = args[0], on_device
            if func is aten.copy_.default:
                here, there = args[1], isinstance(args[0], PretendedTensor)
            self.uploads += there and not isinstance(here, PretendedTensor)
            self.reads.update(["to the host"] if isinstance(here, PretendedTensor) and not there else [])
        elif any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            self.reads["index by a mask"] += 1
        elif func in READS and kwargs.get("output_size") is None:
            self.reads[func._schema.name.removeprefix("aten::")] += 1


@contextmanager
def pretended_cuda() -> Iterator[PretendedDevice]:
    """A CUDA device for whoever asks torch within; tensors of it are of no use afterwards."""
    nothing = mock.Mock(return_value=None)
    answers = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_bf16_supported": lambda *args, **kwargs: False,
        "get_device_capability": lambda *args: (8, 0),
        "get_rng_state": lambda *args: torch.get_rng_state(),  # what is pretended draws on the CPU
        "set_rng_state": lambda state, *args: torch.set_rng_state(state),
    } | dict.fromkeys(("_lazy_init", "set_device", "manual_seed_all", "empty_cache", "synchronize"), nothing)
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(Tensor, "to", _moved(Tensor.to)))
        stack.enter_context(mock.patch.object(Tensor, "cuda", lambda tensor: tensor.to(CUDA)))
        for name in ("tensor", "as_tensor"):
            stack.enter_context(mock.patch.object(torch, name, _made(getattr(torch, name))))
        stack.enter_context(mock.patch.object(torch, "Generator", PretendedGenerator))
        AcceleratorState._reset_state(reset_partial_state=True)  # the Trainer's memory of which device there is
        try:
            with PretendedDevice() as device:
                yield device
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)
            PartialState._reset_state()


def _run(func: Any, args: Any, kwargs: dict[str, Any], device: PretendedDevice | None) -> Any:
    """Do on the CPU what was asked, and say that the result is on the pretended device where CUDA's would be."""
    leaves = tree_leaves((args, kwargs))
    ours = [leaf for leaf in leaves if isinstance(leaf, PretendedTensor)]
    plain = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, PretendedTensor)]
    if ours and plain:
        _check(func, args, kwargs, plain)
    wanted = kwargs.get("device")
    on_device = bool(ours) if wanted is None else wanted.type != "cpu"
    for leaf in leaves:
        if isinstance(leaf, RealGenerator) and (leaf._cdata in PretendedGenerator.alive) is not on_device:
            raise RuntimeError(f"Expected a generator of the tensor's device in {func}, got one of the other device")
    if device is not None and (ours or on_device):
        device.count(func, args, kwargs, on_device)
    wrappers = {id(tensor.inner): tensor for tensor in ours}
    out = func(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
    if torch.Tag.inplace_view in func.tags and ours:
        with no_dispatch():  # shape and strides of the wrapper follow
            func(*args, **kwargs)
    if not on_device:
        return out

    def wrapped(leaf: Any) -> Any:
        if id(leaf) in wrappers:  # changed in place
            return wrappers[id(leaf)]
        return PretendedTensor(leaf) if isinstance(leaf, Tensor) else leaf

    return tree_map(wrapped, out)


def _on_cpu(leaf: Any) -> Any:
    if isinstance(leaf, PretendedTensor):
        return leaf.inner
    return torch.device("cpu") if isinstance(leaf, torch.device) else leaf


def _check(func: Any, args: Any, kwargs: dict[str, Any], plain: list[Tensor]) -> None:
    """Refuse what CUDA refuses of an operation that has tensors of both devices.

    Raises:
        RuntimeError: as CUDA does.
    """
    if func in COPIES:
        return
    allowed = [tensor for tensor in plain if tensor.dim() == 0] if _takes_scalars(func) else []
    if func in INDEXED and isinstance(args[0], PretendedTensor):
        allowed += [index for index in args[1] if index is not None]
    written = [
        value
        for argument, value in zip(func._schema.arguments, args, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    ids = {id(tensor) for tensor in allowed} - {id(leaf) for leaf in tree_leaves(written)}
    if any(id(tensor) not in ids for tensor in plain):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {func}")


def _takes_scalars(func: Any) -> bool:
    return torch.Tag.pointwise in func.tags or func in TAKE_SCALARS or func in INDEXED


def _moved(to: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`Tensor.to`, which without CUDA knows no device `cuda`."""

    def moved(tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        target = META if device is not None and device.type == "cuda" else device
        form = {} if memory_format is None else {"memory_format": memory_format}
        return to(tensor, device=target, dtype=dtype, non_blocking=non_blocking, copy=copy, **form)

    return moved


def _made(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.tensor` and `as_tensor`, which make a tensor on the CPU and move it."""

    def made(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        tensor = make(*args, **kwargs)
        return tensor if device is None else tensor.to(torch.device(device))

    return made
