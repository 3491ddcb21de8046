"""BatchNorm folded for evaluation: the same logits, and nothing of the network itself changes."""

import pytest
import torch
from torch import Tensor, nn

from lra.networks import build
from lra.networks.folded import folded
from lra.networks.generators import gen_s
from lra.networks.normalized import Normalized
from lra.problem import Teacher

IMAGE = (3, 16, 16)
PLAIN = ("lenet5-bn", "resnet8", "resnet8x4", "wrn10-1", "resnet18", "mobilenetv2")


def trained(name: str) -> nn.Module:
    """A network in double precision whose BatchNorm has seen something, in evaluation mode."""
    torch.manual_seed(0)
    network = Normalized(build(name, 10, IMAGE), (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)).double()
    for _ in range(3):
        network(1 + 2 * torch.rand(16, *IMAGE, dtype=torch.double))
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())


@pytest.mark.parametrize("name", PLAIN)
def test_the_logits_are_those_of_the_network(name: str) -> None:
    network, images = trained(name), torch.rand(5, *IMAGE, dtype=torch.double)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        quick = folded(network)
        torch.testing.assert_close(quick(images), network(images), rtol=1e-9, atol=1e-10)
    assert norms(quick) < norms(network)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


def test_all_of_a_resnet_is_folded_and_of_a_pre_activated_one_what_follows_a_convolution() -> None:
    assert norms(folded(trained("resnet8"))) == 0
    # Stem and sums go to several places, or through ReLU: the second norm of each of three blocks is left to fold.
    assert norms(trained("wrn10-1")) - norms(folded(trained("wrn10-1"))) == 3


@pytest.mark.parametrize("name", PLAIN)
def test_a_teacher_answers_as_its_network_does_and_passes_on_the_same_gradient(name: str) -> None:
    network, images = trained(name), torch.rand(5, *IMAGE, dtype=torch.double, requires_grad=True)
    teacher = Teacher(network)
    torch.testing.assert_close(teacher.label(images), network(images), rtol=1e-9, atol=1e-10)
    wanted, found = (torch.autograd.grad(each(images).square().sum(), images)[0] for each in (network, teacher))
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)


def test_hooks_on_a_teacher_see_its_passes_whenever_they_are_put_there_and_it_can_move_afterwards() -> None:
    network, images = trained("resnet8"), torch.rand(2, *IMAGE, dtype=torch.double)
    teacher, seen = Teacher(network), []
    before = teacher.label(images)
    norm = next(part for part in network.modules() if isinstance(part, nn.BatchNorm2d))
    handle = norm.register_forward_hook(lambda _, inputs, output: seen.append(output))
    torch.testing.assert_close(teacher.label(images), before, rtol=1e-9, atol=1e-10)
    assert len(seen) == 1
    handle.remove()
    assert teacher.label(images).equal(before)
    teacher.float()
    assert teacher.label(images.float()).dtype == torch.float32
    assert teacher.state_dict().keys() == {f"network.{key}" for key in network.state_dict()}


@pytest.mark.parametrize("batch", [2, 64])  # With few images the upsampling is an operation of its own.
def test_a_generator_is_folded_too(batch: int) -> None:
    torch.manual_seed(0)
    generator, latents = gen_s(7, (3, 18, 16), width=16).double(), torch.randn(batch, 7, dtype=torch.double)
    for _ in range(3):
        generator(torch.randn(16, 7, dtype=torch.double))
    generator.eval()
    quick = folded(generator)
    torch.testing.assert_close(quick(latents), generator(latents), rtol=1e-9, atol=1e-10)
    assert norms(quick) == 1  # Behind the linear layer.


class Own(nn.Module):
    """A network from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


class Twice(nn.Module):
    """One convolution in two places, as if it were of this package."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        nn.init.constant_(self.second.weight, 2.0)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.conv(self.first(self.conv(images)))).flatten(1)


def test_a_part_from_elsewhere_runs_as_a_whole() -> None:
    network = build("resnet8", 10, IMAGE)
    network.set_submodule("layer2", nn.Sequential(nn.Conv2d(16, 3, 1), Own(), nn.Unflatten(1, (4, 14, 14))))
    network.set_submodule("layer3", nn.Conv2d(4, 64, 1))
    network.eval()
    quick, images = folded(network), torch.rand(2, *IMAGE)
    assert norms(quick) == 1
    torch.testing.assert_close(quick(images), network(images), rtol=1e-4, atol=1e-5)


def test_what_is_not_known_is_returned_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for network in (Own().eval(), Normalized(Own(), [0.5] * 3, [0.5] * 3).eval(), build("lenet5", 10, IMAGE).eval()):
        assert folded(network) is network
    learning = build("resnet8", 10, IMAGE)
    assert folded(learning) is learning
    watched = build("resnet8", 10, IMAGE).eval()
    watched.get_submodule("layer1").register_forward_hook(lambda *_: None)
    assert folded(watched) is watched
    wrapped = Normalized(build("resnet8", 10, IMAGE), [0.5] * 3, [0.5] * 3).eval()
    wrapped.register_forward_hook(lambda *_: None)
    assert folded(wrapped) is wrapped
    monkeypatch.setattr(Twice, "__module__", "lra.networks")
    twice = Twice().eval()
    assert folded(twice) is twice
    dependent = build("vgg11-cmi", 10, IMAGE).eval()
    images = torch.rand(2, *IMAGE)
    torch.testing.assert_close(folded(dependent)(images), dependent(images), rtol=1e-4, atol=1e-5)
