"""What a forward pass shows of a network: its classifier, whatever else is registered or runs."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from lra.anatomy import HeadNotFound, batchnorm_layers, classifier, penultimate
from lra.features import BatchNormStatistics, FeatureTap
from lra.networks.normalized import Normalized
from lra.problem import Teacher
from lra.quantization.network import Precision, quantized
from lra.state import untouched

IMAGE, CLASSES, WIDTH = (1, 8, 8), 5, 12


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Net(nn.Module):
    """A body, BatchNorm and a linear classifier; the variants below do more around them."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, WIDTH), nn.ReLU()
        )
        self.fc = nn.Linear(WIDTH, CLASSES)
        self.other = nn.Linear(WIDTH, 4)
        self.late = nn.BatchNorm1d(WIDTH)

    def forward(self, x):
        return self.fc(self.body(x))


class Dropped(Net):
    """Another head runs, and its answer is dropped."""

    def forward(self, x):
        features = self.body(x)
        logits = self.fc(features)
        self.other(features + 1)
        return logits


class TrainingOnly(Net):
    """A branch that is there in training alone, before and after the classifier in order of registration."""

    def forward(self, x):
        features = self.body(x)
        logits = self.fc(features)
        return logits + self.other(self.late(features)).mean() if self.training else logits


class Tempered(Net):
    """A learned temperature, a mask, dropout and a reshape after the classifier."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(2.0))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        logits = self.fc(self.body(x)) / self.temperature
        logits[:, CLASSES - 1 :] = -10.0
        return self.dropout(logits.view(-1, CLASSES, 1, 1).squeeze(-1)).flatten(1)


class Relative(Net):
    """Logits by the length of the features they are made of: these count twice, and are no head."""

    def forward(self, x):
        features = self.body(x)
        return self.fc(features) / features.norm(dim=1, keepdim=True).clamp_min(1e-3)


class Frozen(Net):
    """A body that runs without a graph."""

    def forward(self, x):
        with torch.no_grad():
            features = self.body(x)
        return self.fc(features)


class Squeezed(Net):
    """Loses the batch of a single image."""

    def forward(self, x):
        return self.fc(self.body(x).squeeze()).squeeze()


class CosineLayer(nn.Module):
    """A normalised classifier as a module of its own, under a bare parameter's name."""

    def __init__(self):
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(CLASSES, WIDTH))

    def forward(self, x):
        return 10 * F.linear(F.normalize(x, dim=1), F.normalize(self.prototypes, dim=1))


class CosineHead(Net):
    def __init__(self):
        super().__init__()
        self.fc = CosineLayer()


class Prototypes(CosineLayer):
    """Minus the distances to prototypes."""

    def forward(self, x):
        return -torch.cdist(x, self.prototypes)


class DistanceHead(Net):
    def __init__(self):
        super().__init__()
        self.fc = Prototypes()


class Bare(Net):
    """A normalised classifier that is a parameter of the network."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CLASSES, WIDTH))

    def forward(self, x):
        return 10 * F.linear(F.normalize(self.body(x), dim=1), F.normalize(self.weight, dim=1))


class OneByOne(Net):
    """A convolution with pooling after it, beside an unused linear layer."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, WIDTH, 3), nn.ReLU())
        self.fc = nn.Conv2d(WIDTH, CLASSES, 1)

    def forward(self, x):
        return F.adaptive_avg_pool2d(F.relu(self.fc(self.body(x))), 1).flatten(1)


class WeightNormed(Net):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.utils.parametrizations.weight_norm(self.fc)
        self.other = torch.nn.utils.parametrizations.spectral_norm(self.other)


class Two(Net):
    """The mean of two heads."""

    def __init__(self):
        super().__init__()
        self.second = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        features = self.body(x)
        return (self.fc(features) + self.second(features)) / 2


class Twice(Net):
    """The same head once more, on something else, for nothing."""

    def forward(self, x):
        features = self.body(x)
        logits = self.fc(features)
        self.fc(features + 1)
        return logits


class Tokens(Net):
    """A classifier of every place, averaged afterwards."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.fc(self.body[:3](x).flatten(2).mT).mean(1)


FOUND = [
    *(Net, Dropped, TrainingOnly, Tempered, Relative, Frozen, Squeezed, CosineHead, DistanceHead, OneByOne),
    *(WeightNormed, Tokens),
]


@pytest.mark.parametrize("wrap", [nn.Identity, nn.DataParallel, "normalized", "teacher"])
@pytest.mark.parametrize("kind", FOUND)
def test_the_classifier_is_what_makes_the_logits(kind, wrap):
    network = kind()
    wrapped = {
        nn.Identity: lambda: network,
        nn.DataParallel: lambda: nn.DataParallel(network),
        "normalized": lambda: Normalized(network, [0.5], [0.5]),
        "teacher": lambda: Teacher(Normalized(network, [0.5], [0.5])),
    }[wrap]()
    assert classifier(wrapped, IMAGE) is network.fc
    images = torch.rand(3, *IMAGE)
    with FeatureTap(wrapped, IMAGE) as tap:
        wrapped.eval()(images)
    seen = images if wrap in (nn.Identity, nn.DataParallel) else (images - 0.5) / 0.5
    body = network.eval().body(seen) if kind is not Tokens else network.eval().body[:3](seen)
    assert torch.allclose(tap.features, body if body.dim() == 2 else body.mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Bare, "a parameter of its own"), (Two, "2 layers make its logits together"), (Twice, "'network.fc' makes its")],
)
def test_where_no_layer_makes_the_logits_the_features_have_to_be_named(kind, said):
    network = Normalized(kind(), [0.0], [1.0])
    with pytest.raises(HeadNotFound, match=rf"features of {kind.__name__} cannot be found: .*{said}") as caught:
        penultimate(network, IMAGE)
    assert "teacher.features" in str(caught.value)
    images = torch.rand(3, *IMAGE)
    for where in ("body", "output:body", "output:body.5"):
        network.features_from(where)
        with FeatureTap(network, IMAGE) as tap:
            network.eval()(images)
        assert torch.equal(tap.features, network.network.body(images))
    assert copy.deepcopy(network).features == where, "a copy knows it too"
    network.features_from("input:body.4")
    with FeatureTap(network, IMAGE) as tap:
        network(images)
    assert tap.features.shape == (3, 256)


def test_a_name_that_is_none_is_refused_with_the_nearest():
    network = Normalized(Net(), [0.0], [1.0])
    with pytest.raises(ValueError, match=r"Net has no module 'bodi'; did you mean 'body'"):
        network.features_from("bodi")
    with pytest.raises(ValueError, match="before the colon stands input or output"):
        network.features_from("inside:body")


def test_a_function_of_the_images_alone_has_no_head():
    with pytest.raises(HeadNotFound, match="no product with weights"):
        classifier(nn.Sequential(nn.Flatten()), IMAGE)

    class Ungraphed(Net):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    with pytest.raises(HeadNotFound, match="no product with weights"):
        classifier(Ungraphed(), IMAGE)


@pytest.mark.parametrize("kind", [Net, Dropped, Relative, Frozen, OneByOne, Tokens])
def test_a_quantised_copy_has_the_same_classifier(kind):
    network = kind()
    network.late = nn.Identity()  # of vectors, which is not quantised
    copied = quantized(network, Precision())
    assert classifier(copied, IMAGE) is copied.fc


def test_batchnorm_that_does_not_run_is_no_statistic():
    network = TrainingOnly().train()
    assert batchnorm_layers(network, IMAGE) == [network.body[1]]
    with BatchNormStatistics(network, IMAGE) as statistics:
        network(torch.rand(3, *IMAGE))
    assert len(statistics.layers) == len(statistics.values) == 1
    network.body[1] = nn.Identity()
    lonely = copy.deepcopy(network)
    with pytest.raises(ValueError, match="needs a teacher with BatchNorm"):
        BatchNormStatistics(lonely, IMAGE)


def test_looking_leaves_no_trace():
    class Restless(Dropped):
        """Counts its calls in a buffer, draws at random even in evaluation mode."""

        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return super().forward(x) + 0 * torch.rand(())

    network = Restless().train()
    network.body[0].requires_grad_(False)
    network.body[1].eval()
    before, state = copy.deepcopy(network), torch.get_rng_state()
    teacher = Teacher(copy.deepcopy(network))
    classifier(network, IMAGE)
    classifier(teacher.network, IMAGE)
    assert torch.equal(torch.get_rng_state(), state)
    assert teacher.queries == 0
    for name, value in before.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
    assert [m.training for m in network.modules()] == [m.training for m in before.modules()]
    assert [p.requires_grad for p in network.parameters()] == [p.requires_grad for p in before.parameters()]
    assert all(p.grad is None for p in network.parameters())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(m._forward_hooks for m in network.modules())


def test_looking_does_not_break_a_graph_that_waits():
    network = Net().eval()
    loss = network(torch.rand(4, *IMAGE)).sum()
    with untouched(network):
        classifier(network, IMAGE)
    loss.backward()
    assert network.body[1].weight.grad is not None


@pytest.mark.parametrize(
    ("name", "head"),
    [("squeezenet1_1", "classifier.1"), ("mobilenet_v3_small", "classifier.3"), ("densenet121", "classifier")],
)
def test_known_architectures_have_the_classifier_that_their_papers_say(name, head):
    network = torchvision.models.get_model(name, num_classes=7)
    assert classifier(network, (3, 64, 64)) is network.get_submodule(head)
