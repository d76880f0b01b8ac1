"""The pretended device refuses what CUDA refuses, takes what CUDA takes, and counts what the host waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.second_device import PretendedDevice, pretended_cuda

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real device")
Mixed = Callable[[Tensor, Tensor], object]  # of a tensor of each device: [0, 1, 2] of CUDA, the same of the CPU


@pytest.fixture
def device() -> Iterator[PretendedDevice]:
    with pretended_cuda() as pretended:
        yield pretended


@pytest.mark.parametrize(
    "mixed",
    [
        lambda there, here: there + here,
        lambda there, here: here * there[0],
        lambda there, here: there.ge(1) & (here > 0),
        lambda there, here: torch.where(there > 0, there, here),
        lambda there, here: torch.cat([there, here]),
        lambda there, here: torch.stack([here, there]),
        lambda there, here: here[there],
        lambda there, here: here[there > 0],
        lambda there, here: there.gather(0, here),
        lambda there, here: there.index_add(0, there, here),
        lambda there, here: torch.searchsorted(there, here),
        lambda there, here: here.__setitem__(here, there),
        lambda there, here: there.__setitem__(there, here),
        lambda there, here: here.add_(there),
        lambda there, here: here[0].add_(there[0]),
        lambda there, here: nn.functional.embedding(here, there.float()[:, None]),
        lambda there, here: there.float() @ here.float(),
        lambda there, here: torch.rand(3, generator=torch.Generator(), device="cuda"),
        lambda there, here: torch.rand(3, generator=torch.Generator("cuda")),
        lambda there, here: there.float().bernoulli_(generator=torch.Generator()),
    ],
)
def test_devices_do_not_mix(mixed: Mixed, device: PretendedDevice) -> None:
    with pytest.raises(RuntimeError, match=r"on the same device|generator of the tensor's device"):
        mixed(torch.arange(3, device="cuda"), torch.arange(3))


@pytest.mark.parametrize(
    "mixed",
    [
        lambda there, here: there + here[1],
        lambda there, here: here[1] * there,
        lambda there, here: there.clamp(min=1) / 2,
        lambda there, here: torch.where(there > 0, there, here[0]),
        lambda there, here: there[here],
        lambda there, here: there[here > 0],
        lambda there, here: there.index_put((here,), there),
        lambda there, here: there + here.to("cuda"),
        lambda there, here: there + torch.tensor([1, 2, 3], device=there.device),
        lambda there, here: there + torch.arange(3).to(there),
        lambda there, here: there.new_ones(3) + there,
        lambda there, here: torch.zeros_like(here, device="cuda") + there,
        lambda there, here: there.copy_(here),
        lambda there, here: torch.rand(3, generator=torch.Generator("cuda"), device="cuda") + there,
        lambda there, here: there.unsqueeze_(0).t_(),
    ],
)
def test_what_cuda_takes(mixed: Mixed, device: PretendedDevice) -> None:
    found = mixed(torch.arange(3, device="cuda"), torch.arange(3))
    assert isinstance(found, Tensor) and found.is_cuda and str(found.device) == "cuda:0"


def test_there_and_back(device: PretendedDevice) -> None:
    there = torch.arange(6, device="cuda").view(2, 3)
    assert (there * 2).tolist() == [[0, 2, 4], [6, 8, 10]]
    assert torch.equal(there.T.cpu(), torch.arange(6).view(2, 3).T)
    assert there.to("cuda") is there and there.cpu().device.type == there.to("cpu").device.type == "cpu"
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    there[1] += 1
    assert there.sum().item() == 18


def test_weights_move_and_learn_as_on_the_cpu(device: PretendedDevice) -> None:
    torch.manual_seed(0)
    here, x = nn.Linear(3, 2), torch.randn(5, 3)
    there = nn.Linear(3, 2)
    there.load_state_dict(here.state_dict())
    before = list(there.parameters())
    there.to("cuda")
    assert all(one is other for one, other in zip(before, there.parameters(), strict=True))
    for model, batch in ((here, x), (there, x.to("cuda"))):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(3):
            model(batch).square().sum().backward()
            optimizer.step()
    assert all(torch.equal(one, other.cpu()) for one, other in zip(here.parameters(), there.parameters(), strict=True))


def test_what_the_host_waits_for_is_counted(device: PretendedDevice) -> None:
    there, here = torch.arange(4, device="cuda"), torch.arange(4)
    there + there, there[here], there.sum(), there.to("cuda"), torch.repeat_interleave(there, there, output_size=6)
    (here > 0).any().item(), here[here > 1]
    assert not device.reads and device.uploads == 1
    (
        there + torch.tensor([1, 2, 3, 4], device="cuda"),
        here.to("cuda"),
        there.copy_(here),
        there.view(2, 2)[here // 2, here % 2],
    )
    there.new_ones(3), torch.zeros(3, device="cuda"), there + 3, there + here[0]
    assert not device.reads and device.uploads == 6
    int(there[2])
    bool((there > 1).any())
    there[there > 1]
    there[there > 1] = 0
    there.nonzero(), there.unique(), torch.repeat_interleave(there), there.cpu(), there.tolist()
    assert device.reads == {
        "_local_scalar_dense": 2, "index by a mask": 2, "nonzero": 1, "_unique2": 1, "repeat_interleave": 1, "to the host": 2,
    }  # fmt: skip


def test_afterwards_torch_is_as_it_was() -> None:
    names = [(torch.cuda, "is_available"), (Tensor, "to"), (torch, "tensor"), (torch, "Generator")]
    before = [getattr(owner, name) for owner, name in names]
    with pretended_cuda():
        assert torch.cuda.is_available()
    assert [getattr(owner, name) for owner, name in names] == before
