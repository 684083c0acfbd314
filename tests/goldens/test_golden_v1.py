"""SkyReels V1's sampler against the original's. Its other parts are the library's, compared in the unit tests."""

import logging

import torch

from components.euler import FlowEuler
from components.sampler import TRAIN_TIMESTEPS
from tests.goldens.cases import max_diff, parametrize

log = logging.getLogger("goldens")  # --log-cli-level=INFO shows the measured differences


@parametrize("scheduler_v1_euler")
def test_golden_sampler(case):
    config, tensors = case.config, case.tensors()
    sampler = FlowEuler(config["steps"], config["shift"], to_zero=True)
    assert max_diff(torch.tensor(sampler.timesteps), tensors["out.timesteps"]) <= 1e-3
    assert max_diff(torch.tensor([*sampler.timesteps, 0.0]) / TRAIN_TIMESTEPS, tensors["out.sigmas"]) <= 1e-6
    sample, worst = tensors["in.sample"], 0.0
    for velocity, expected in zip(tensors["in.model_outputs"], tensors["out.trajectory"], strict=True):
        sample = sampler.step(velocity, sample)
        worst = max(worst, max_diff(sample, expected))
    log.info("max_diff %.3g", worst)
    assert worst <= 1e-5
