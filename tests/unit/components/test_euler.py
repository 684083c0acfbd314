import pytest
import torch

from components.euler import FlowEuler


def test_the_released_grid():
    assert FlowEuler(4, 11).timesteps == pytest.approx((1000, 956.5841, 846.5437, 10.8911), abs=1e-3)


def test_the_grid_whose_end_is_one_of_its_even_points():
    sampler = FlowEuler(4, 7, to_zero=True)
    assert sampler.timesteps == pytest.approx((1000, 954.5454, 875, 700), abs=1e-3)
    assert sampler.name != FlowEuler(4, 7).name


def test_a_straight_flow_is_followed_exactly():
    noise, clean = torch.randn(2, 3), torch.randn(2, 3)
    sampler, sample = FlowEuler(4, 11), noise
    while sampler.position < 4:
        sample = sampler.step(noise - clean, sample)
    assert torch.allclose(sample, clean, atol=1e-6)
    with pytest.raises(ValueError, match="all 4 steps"):
        sampler.step(noise, sample)


def test_it_continues_where_its_state_was_taken():
    first, second = FlowEuler(3, 11), FlowEuler(3, 11)
    velocity = torch.ones(2)
    first.step(velocity, velocity)
    second.restore(first.state(), torch.device("cpu"))
    assert second.position == 1
    assert torch.equal(first.step(velocity, velocity), second.step(velocity, velocity))
