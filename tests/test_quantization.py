"""Quantisers: the values they can represent, their gradients, and networks made of them."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lra.anatomy import stages
from lra.networks import build
from lra.networks.normalized import Normalized
from lra.options import Precision
from lra.quantization.layers import (
    Grid,
    InputRounding,
    QuantizedConv2d,
    WeightRounding,
    between,
    rounded,
    signed,
    stored,
    unsigned,
)
from lra.quantization.network import Unquantizable, calibrate, in_integers, quantized, roundings, size

pytestmark = pytest.mark.kernels

BITS = range(2, 9)


@pytest.mark.parametrize("bits", BITS)
def test_so_many_bits_so_many_levels(bits: int) -> None:
    assert unsigned(bits).levels == signed(bits).levels == 2**bits
    assert signed(bits, symmetric=True) == Grid(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1)
    x = torch.linspace(-1, 2, 4001)
    assert len(rounded(x, between(x.min(), x.max(), unsigned(bits))).unique()) == 2**bits


@given(
    bits=st.integers(2, 8), low=st.floats(-50, 50), width=st.floats(1e-3, 100), symmetric=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_rounding_is_to_the_nearest_representable_value(
    bits: int, low: float, width: float, symmetric: bool, seed: int
) -> None:
    ends = torch.tensor([low, low + width])
    affine = between(*ends, signed(bits, symmetric), symmetric)
    grid = (torch.arange(affine.grid.low, affine.grid.high + 1) - affine.zero) * affine.scale.double()
    x = low + width * torch.rand(50, generator=torch.Generator().manual_seed(seed))
    y = rounded(x, affine).double()
    nearest = grid[(x.double()[:, None] - grid).abs().argmin(dim=1)]
    slack = 1e-4 * affine.scale.item()
    assert ((y - x).abs() <= (nearest - x).abs() + slack).all()
    assert torch.equal(rounded(y.float(), affine).double(), y)  # Rounding twice is rounding once.
    assert torch.allclose((stored(x, affine) - affine.zero) * affine.scale, y.float(), rtol=1e-6, atol=1e-7)
    assert (grid == 0).any()
    assert affine.zero == 0 or not symmetric


def test_the_range_and_zero_are_covered_within_half_a_step() -> None:
    for low, high in ((-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0)):
        ends = torch.tensor([low, high])
        affine = between(ends[0], ends[1], unsigned(4))
        assert (rounded(ends, affine) - ends).abs().max() <= affine.scale / 2 + 1e-6
        assert rounded(torch.zeros(1), affine) == 0


def test_the_gradient_goes_straight_through_within_the_range_and_not_beyond() -> None:
    affine = between(torch.tensor(-0.75), torch.tensor(1.0), unsigned(3))
    x = torch.tensor([-2.0, -0.7, 0.2, 0.97, 1.2], requires_grad=True)
    rounded(x, affine).pow(2).sum().backward()
    y = rounded(x.detach(), affine)
    assert torch.allclose(x.grad, torch.tensor([0.0, 1, 1, 1, 0]) * 2 * y)


def test_channels_have_scales_of_their_own() -> None:
    weight = torch.randn(5, 3, 2, 2) * torch.tensor([0.01, 0.1, 1, 10, 100])[:, None, None, None]
    weight[0] = 0
    rounding = WeightRounding(4)
    whole = rounding(weight)
    assert torch.equal(whole[0], weight[0])
    for channel in range(1, 5):
        alone = rounding(weight[channel : channel + 1])
        assert torch.equal(whole[channel], alone[0])
        assert (whole[channel] - weight[channel]).abs().max() <= rounding.affine(weight).scale[channel] / 2 * 1.01
        assert len(whole[channel].unique()) > 2


def test_a_scale_of_batchnorm_folded_in_rounds_to_the_same_values() -> None:
    weight, factor = torch.randn(6, 4, 3, 3), torch.rand(6, 1, 1, 1) + 0.1
    rounding = WeightRounding(3)
    assert torch.allclose(rounding(weight * factor), rounding(weight) * factor, atol=1e-6)


def test_observed_ranges_are_bias_corrected_moving_averages() -> None:
    rounding, batches = InputRounding(4, momentum=0.9), [torch.rand(20) * k - 1 for k in range(1, 5)]
    for batch in batches:
        rounding.observe(batch)
    weights = torch.tensor([0.9 ** (len(batches) - 1 - k) for k in range(len(batches))])
    wanted = (weights * torch.stack([b.max() for b in batches])).sum() / weights.sum()
    assert torch.allclose(rounding.high, wanted)
    rounding.forget()
    rounding.observe(batches[0])
    assert (rounding.low, rounding.high) == (batches[0].min(), batches[0].max())


@pytest.fixture(params=["resnet8", "lenet5", "mobilenetv2", "mlp"])
def network(request: pytest.FixtureRequest) -> Normalized:
    torch.manual_seed(0)
    return Normalized(build(request.param, 10, (1, 16, 16)), [0.3], [0.4]).eval()


def calibrated(network: Normalized, **precision: int) -> tuple[Normalized, torch.Tensor]:
    student, images = quantized(network, Precision(**precision)), torch.rand(8, 1, 16, 16)
    calibrate(student, [images])
    return student.eval(), images


@pytest.mark.parametrize("name", ["resnet8", "lenet5", "mlp"])
def test_eight_bits_are_near_the_original_and_fewer_are_less_so(name: str) -> None:
    torch.manual_seed(0)
    network, apart = Normalized(build(name, 10, (1, 16, 16)), [0.3], [0.4]).eval(), []
    with torch.no_grad():
        for bits in (8, 4, 2):
            student, images = calibrated(network, weight_bits=bits, activation_bits=bits)
            wanted = network(images)
            apart.append(((student(images) - wanted).norm() / wanted.norm()).item())
    assert apart[0] < 0.1
    assert apart == sorted(apart)


def test_it_is_a_copy_that_keeps_names_and_learns(network: Normalized) -> None:
    before = copy.deepcopy(network.state_dict())
    student, images = calibrated(network)
    assert set(before) <= set(student.state_dict())
    student.train()
    statistics = {k: v.clone() for k, v in student.named_buffers()}
    student(images).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
    assert all(torch.equal(v, statistics[k]) for k, v in student.named_buffers())  # Frozen, ranges and BatchNorm.
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_the_same_stages_are_found_in_it(network: Normalized) -> None:
    if any(isinstance(module, nn.Conv2d) for module in network.modules()):
        found = []
        for each in (network, calibrated(network)[0]):
            names = {id(module): name for name, module in each.named_modules()}
            found.append([names[id(stage)] for stage in stages(each, (1, 16, 16))])
        assert found[0] == found[1]


def test_first_and_last_layer_can_have_more_bits_and_the_image_always_has(network: Normalized) -> None:
    for edge in (None, 8):
        student = quantized(network, Precision(weight_bits=3, activation_bits=3, edge_bits=edge))
        weights = [m.bits for m in student.modules() if isinstance(m, WeightRounding)]
        inputs = [m.bits for m in roundings(student)]
        assert (weights[0], weights[-1]) == ((edge or 3), (edge or 3))
        assert set(weights[1:-1]) <= {3}
        assert (inputs[0], inputs[-1]) == (8, edge or 3)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_integers_give_the_same_logits_and_fit_their_bits(network: Normalized, bits: int) -> None:
    student, images = calibrated(network, weight_bits=bits, activation_bits=bits)
    whole = in_integers(student)
    weights = [v.int() for v in whole.state_dict().values() if v.dtype == torch.int8 and v.dim() > 1]
    assert len(weights) == len(roundings(student))
    assert all(w.min() >= -(2 ** (bits - 1)) and w.max() < 2 ** (bits - 1) for w in weights)
    with torch.no_grad():
        wanted, found = student(images), whole(images)
    assert torch.allclose(found, wanted, atol=1e-4 * wanted.abs().max().item())


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([nn.Conv2d(1, 2, 3), nn.PReLU()], r"'1' \(PReLU\)"),
        ([nn.ConvTranspose2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)], r"'0' \(ConvTranspose2d\)"),
        ([nn.Linear(2, 2), nn.Sequential(nn.GRU(2, 2))], r"'1.0' \(GRU\)"),
        ([nn.ReLU()], "no Conv2d or Linear"),
    ],
)
def test_what_cannot_be_quantised_is_named(layers: list[nn.Module], said: str) -> None:
    with pytest.raises(Unquantizable, match=said):
        quantized(nn.Sequential(*layers), Precision())


def test_a_shared_layer_stays_shared() -> None:
    layer = nn.Linear(3, 3)
    student = quantized(nn.Sequential(layer, nn.ReLU(), layer), Precision())
    assert student[0] is student[2]
    assert len(roundings(student)) == 1


def test_size_counts_weights_at_their_bits_and_everything_else_too() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(10, 3))
    found = size(quantized(network, Precision(weight_bits=3)))
    weights, scales, floats = 3 * (72 + 30), 40 * (4 + 3 + 2), 32 * (4 + 4 + 4 + 4 + 3)
    assert found["bytes"] == -(-(weights + scales + floats) // 8)
    assert found["bytes_full_precision"] == 4 * (72 + 30 + 19)
    assert found["bits_per_weight"] == pytest.approx((weights + scales + floats) / (72 + 30 + 11))


def test_training_mends_what_rounding_broke() -> None:
    """On a tiny problem straight-through training gets nearer to the original than rounding does."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3))
    student, x, fresh = quantized(network, Precision(weight_bits=3, activation_bits=3)), *torch.randn(2, 512, 6)
    calibrate(student, [x])
    wanted, unseen = network(x).detach(), network(fresh).detach()
    before = F.mse_loss(student(fresh), unseen).item()
    optimiser = torch.optim.Adam(student.parameters(), lr=0.01)
    for _ in range(150):
        optimiser.zero_grad()
        F.mse_loss(student(x), wanted).backward()
        optimiser.step()
    assert F.mse_loss(student(fresh), unseen).item() < before / 2


def test_the_second_derivative_exists_for_the_meta_step() -> None:
    layer = QuantizedConv2d(nn.Conv2d(1, 2, 3), WeightRounding(4), InputRounding(4))
    layer.inputs.observe(x := torch.rand(2, 1, 5, 5))
    (first,) = torch.autograd.grad(layer(x).pow(3).sum(), layer.weight, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), layer.weight)
    assert second.abs().sum() > 0
