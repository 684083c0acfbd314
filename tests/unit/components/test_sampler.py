import json

import pytest
import torch
from diffusers import UniPCMultistepScheduler

from components.sampler import FlowUniPC, SamplerState

CPU = torch.device("cpu")


def velocities(steps: int) -> torch.Tensor:
    return torch.randn((steps, 1, 4, 2, 3, 3), generator=torch.Generator().manual_seed(9))


def walk(sampler: FlowUniPC, sample: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
    for velocity in fields:
        sample = sampler.step(velocity, sample)
    return sample


def test_grid_of_eight_steps_at_shift_eight():
    sampler = FlowUniPC(8, 8.0)
    assert sampler.timesteps == (999, 982, 959, 930, 888, 827, 727, 533)
    assert sampler.sigmas[-1] == 0


def test_librarys_own_grid_is_another_one():
    library = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
    library.set_timesteps(8)
    assert tuple(library.timesteps.tolist()) != FlowUniPC(8, 5.0).timesteps


def test_a_straight_flow_is_followed_exactly():
    # With the constant velocity noise − clean, every solver must arrive at the clean sample.
    clean, noise = velocities(2)
    sampler = FlowUniPC(8, 5.0)
    start = sampler.sigmas[0] * noise + (1 - sampler.sigmas[0]) * clean
    end = walk(sampler, start, (noise - clean).expand(8, *clean.shape))
    torch.testing.assert_close(end, clean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_state_restored_anywhere_gives_the_identical_rest(steps):
    fields = velocities(steps)
    start = torch.ones(fields.shape[1:])
    expected = walk(FlowUniPC(steps, 5.0), start, fields)
    for at in range(steps + 1):
        first = FlowUniPC(steps, 5.0)
        sample = walk(first, start, fields[:at])
        state = first.state()
        carried = SamplerState(
            {name: tensor.clone() for name, tensor in state.tensors.items()}, json.loads(json.dumps(state.counters))
        )
        second = FlowUniPC(steps, 5.0)
        second.restore(carried, CPU)
        assert second.position == at
        assert torch.equal(walk(second, sample, fields[at:]), expected)


def test_samplers_share_nothing():
    fields = velocities(4)
    one, other, alone = FlowUniPC(4, 5.0), FlowUniPC(4, 5.0), FlowUniPC(4, 5.0)
    mine = theirs = torch.ones(fields.shape[1:])
    for velocity in fields:
        mine = one.step(velocity, mine)
        theirs = other.step(-velocity, theirs)
    assert torch.equal(mine, walk(alone, torch.ones(fields.shape[1:]), fields))


def test_equal_timesteps_are_each_taken():
    steps = 400  # at this shift the first timesteps coincide after truncation
    sampler = FlowUniPC(steps, 12.0)
    assert sampler.timesteps[0] == sampler.timesteps[1]
    fields = torch.zeros(steps, 1, 1, 1, 1, 1)
    walk(sampler, torch.ones(1, 1, 1, 1, 1), fields)
    assert sampler.position == steps


def test_no_step_beyond_the_grid():
    sampler = FlowUniPC(1, 5.0)
    sampler.step(torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1))
    with pytest.raises(ValueError, match="all 1 steps are done"):
        sampler.step(torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1))
