"""A torchvision teacher and a folder of images, which train the teacher and test the student, and nothing else."""

from pathlib import Path

import numpy as np
from PIL import Image

from lra.benchmarks import configuration, run

# An ordinary folder of images, pictures/CLASS/*.png: bright on the left, bright on the right, and neither.
random = np.random.default_rng(0)
for shape in ("left", "right", "even"):
    Path("pictures", shape).mkdir(parents=True, exist_ok=True)
    for index in range(40):
        picture = random.integers(0, 120, (32, 32, 3), dtype=np.uint8)
        half = {"left": slice(0, 16), "right": slice(16, 32), "even": slice(0)}[shape]
        picture[:, half] += 120
        Image.fromarray(picture).save(Path("pictures", shape, f"{index}.png"))

config = configuration(
    method="dafl",
    replay="reservoir",
    meta=True,
    dataset="imagefolder:pictures",
    # Trained here on the folder; a file of weights would be teacher="weights.pt" and teacher.network=torchvision:...
    teacher="torchvision:shufflenet_v2_x0_5",
    student="lenet5",
    steps=20,
    set=(
        *("teacher.epochs=12", "teacher.lr=0.05", "teacher.batch_size=16", "teacher.augment=0"),
        *("schedule.batch_size=16", "schedule.steps_per_experience=2", "schedule.experiences_per_epoch=5"),
        *("synthesis.width=16", "evaluation.probe_size=16"),
    ),
)
folder = run(config, Path("runs"), quiet=True)
assert folder.result is not None
print(f"teacher {folder.result['teacher']['accuracy']:.1f} %, student {folder.result['accuracy']['final']:.1f} %")
print(folder.path / "report.html")
