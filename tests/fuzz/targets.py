"""All targets by name."""

from __future__ import annotations

import random
from collections.abc import Mapping

from tests.fuzz.documents import document_targets
from tests.fuzz.faulty import FAULTY
from tests.fuzz.images import image_targets
from tests.fuzz.models import model_targets
from tests.fuzz.nnunet_v2 import nnunet_v2_targets
from tests.fuzz.results import result_targets
from tests.fuzz.target import Sample, Sampler, Target

REAL: Mapping[str, Target] = {
    target.name: target
    for target in (*image_targets(), *document_targets(), *result_targets(), *model_targets(), *nnunet_v2_targets())
}


def _mixed_sampler() -> Sampler:
    """All of them in turn, in one process: most of a short run's time would be start-up otherwise."""
    samplers = [target.prepare() for target in REAL.values()]

    def draw(rng: random.Random) -> Sample:
        return rng.choice(samplers)(rng)

    return draw


MIXED = Target("mixed", _mixed_sampler, 0)
TARGETS: Mapping[str, Target] = {**REAL, MIXED.name: MIXED, FAULTY.name: FAULTY}
