from types import SimpleNamespace

import pytest
import torch
from avalanche.core import SupervisedPlugin
from short_runs import DIGITS, experiment

from lra.benchmarks.analyses.real_images import RealImages
from lra.benchmarks.setup.retaining import forgetful
from lra.images import unit
from lra.problem import Batch
from lra.strategies.strategy import DataFreeDistillation

USED = "plugin.use=[lra.benchmarks.analyses.real_images:RealImages]"


def built(*settings: str, replay: str = "none"):
    found = experiment("predfkd", USED, "plugin.images=digits", *settings, replay=replay, experiences=3)
    return found, next(plugin for plugin in found.strategy.plugins if isinstance(plugin, RealImages))


class Seen(SupervisedPlugin):
    """Keeps what each of the student's steps is of."""

    def __init__(self):
        super().__init__()
        self.batches: list[Batch] = []

    def before_forward(self, strategy: DataFreeDistillation, **kwargs: object) -> None:
        self.batches.append(strategy.minibatch)


def steps_of(found):
    seen = Seen()
    found.strategy.plugins.append(seen)
    found.strategy.train(found.stream)
    return seen.batches


@pytest.mark.parametrize("replay", ["none", "memory"])
def test_the_student_learns_from_training_images_and_the_teachers_answers(replay):
    found, _ = built("plugin={flip: false, shift: 0}", replay=replay)
    batches = steps_of(found)
    real = {tuple(image.flatten().tolist()) for image in unit(DIGITS.load("train").images)}
    assert len(batches) == 6
    for batch in batches:
        assert all(tuple(image.flatten().tolist()) in real for image in batch.images)
        torch.testing.assert_close(batch.logits, found.stream.teacher.label(batch.images))


def test_a_step_has_as_many_images_as_without():
    found, _ = built(replay="memory")
    without = experiment("predfkd", replay="memory", experiences=3)
    sizes, as_many = ([len(batch.images) for batch in steps_of(one)] for one in (found, without))
    assert sizes == as_many
    assert len(set(sizes)) == 2


def test_images_are_shaken_unless_they_are_not_to_be():
    given = Batch(torch.zeros(8, *DIGITS.image), torch.zeros(8, 10))

    def drawn(*settings):
        _, plugin = built(*settings)
        torch.manual_seed(0)
        plain = unit(plugin.images[torch.randint(len(plugin.images), (8,))])
        torch.manual_seed(0)
        return plain, plugin.altered(given).images

    assert not torch.equal(*drawn())
    torch.testing.assert_close(*drawn("plugin={flip: false, shift: 0}"))


def test_a_run_with_them_can_be_saved():
    assert not forgetful(built()[0].config)


def test_images_of_another_size_are_refused():
    setup = SimpleNamespace(problem=SimpleNamespace(image=(1, 8, 8)), teacher=None)
    with pytest.raises(ValueError, match=r"plugin.images: its images are 1x16x16 and the run's are 1x8x8"):
        RealImages.build(setup, "digits")
