"""A pretended GPU: tensors that say they are on `cuda`, and hold true values on any machine.

Whole steps run, with their branches for a GPU. Two things that a GPU does differently show:

* an operation on tensors of both devices raises;
* what makes the CPU wait for a GPU is listed in `Rehearsal.waits`: a value that is read, a blocking
  copy, an index from the CPU, a mask as an index.

PyTorch's C++ code sees the device `lazy`, on which autograd runs without hardware.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("cuda", 0)
aten = torch.ops.aten
COPIES = (aten._to_copy, aten.copy_)
INDEXING = (aten.index, aten.index_put, aten.index_put_)
READS = (
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.bincount,
    aten._unique2, aten.repeat_interleave,
)  # fmt: skip
SCALARS = (aten.masked_fill, aten.masked_fill_, aten.fill, aten.fill_)  # take one from the CPU


class Far(torch.Tensor):
    """A tensor on the pretended GPU; `near` has its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device, is_cuda = GPU, True

    @staticmethod
    def __new__(cls, near):
        far = torch.Tensor._make_wrapper_subclass(
            cls, near.shape, near.stride(), near.storage_offset(), dtype=near.dtype, device="lazy"
        )
        far.near = near
        return far

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def tolist(self):
        return self.cpu().tolist()

    def __deepcopy__(self, memo):
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        copied._is_param = isinstance(self, torch.nn.Parameter)
        return memo.setdefault(id(self), copied)

    def __reduce_ex__(self, protocol):
        return self.near.__reduce_ex__(protocol)  # a checkpoint is loaded to the CPU


class Rehearsal(TorchDispatchMode):
    """Makes tensors for the GPU there, and notes what waits for it.

    Attributes:
        waits: names of the operations, in order.
    """

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if waits(func.overloadpacket, args, kwargs):
            self.waits.append(str(func))
        return run(func, args, kwargs)


def run(func, args, kwargs):
    """Refuse what a GPU refuses; compute anything else, with the result on the right device."""
    tensors = tensors_of((args, *kwargs.values()))
    far = any(isinstance(x, Far) for x in tensors)
    if not far and kwargs.get("device") is None:
        return func(*args, **kwargs)
    check_devices(func, args, tensors)
    if kwargs.get("device") is not None:
        far, kwargs = is_far(kwargs["device"]), {**kwargs, "device": "cpu"}
    known = {id(x.near) if isinstance(x, Far) else id(x): x for x in tensors}
    found = func(*near(args), **{name: near(value) for name, value in kwargs.items()})

    def placed(x):
        if isinstance(x, list | tuple):
            return type(x)(map(placed, x))
        if not isinstance(x, torch.Tensor):
            return x
        return known[id(x)] if id(x) in known else Far(x) if far else x

    return placed(found)


def tensors_of(values):
    """All tensors in nested lists."""
    found = []
    for x in values:
        if isinstance(x, torch.Tensor):
            found.append(x)
        elif isinstance(x, list | tuple):
            found += tensors_of(x)
    return found


def near(x):
    """The values of tensors in nested lists."""
    if isinstance(x, list | tuple):
        return [near(one) for one in x]
    return x.near if isinstance(x, Far) else x


def is_far(device):
    return torch.device(device).type in ("cuda", "lazy")


def check_devices(func, args, tensors):
    """Raise if tensors of both devices meet, other than where PyTorch allows it."""
    near = [x for x in tensors if not isinstance(x, Far)]
    if not near or len(near) == len(tensors) or func.overloadpacket in COPIES:
        return
    if func.overloadpacket in INDEXING and isinstance(args[0], Far):
        near = [x for x in tensors_of(args[2:]) if not isinstance(x, Far)]  # indices may be near
    scalars = torch.Tag.pointwise in func.tags or func.overloadpacket in SCALARS
    if any(x.dim() > 0 or not scalars or x is args[0] for x in near):
        raise RuntimeError(f"{func}: not all tensors are on the same device")


def waits(packet, args, kwargs):
    """Whether a GPU would keep the CPU waiting."""
    if packet is aten._to_copy:
        to = kwargs.get("device")
        crosses = to is not None and is_far(to) != isinstance(args[0], Far)
        return crosses and not kwargs.get("non_blocking")
    if packet is aten.copy_:
        crosses = isinstance(args[0], Far) != isinstance(args[1], Far)
        return crosses and not (kwargs.get("non_blocking") or args[2:] == (True,))
    if packet in INDEXING:
        indices = [x for x in args[1] if x is not None]
        here = any(not isinstance(x, Far) or x.dtype == torch.bool for x in indices)
        return here and isinstance(args[0], Far)
    return packet in READS and any(isinstance(x, Far) for x in args)
