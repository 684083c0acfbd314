import torch

from components.colour import ColourMatch, to_levels


def frames(count, seed):
    return torch.rand((3, count, 8, 12), generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.6


def test_frames_of_the_source_s_colours_stay():
    source = frames(1, 0)
    assert torch.allclose(ColourMatch(source[:, 0]).match(source), source, atol=1e-5)


def test_a_cast_is_taken_away():
    source = frames(1, 1)
    cast = source * 0.5 + torch.tensor([0.3, 0.0, -0.2])[:, None, None, None]
    matched = ColourMatch(source[:, 0]).match(cast)
    before, after = (cast - source).abs().mean(), (matched - source).abs().mean()
    assert after < before / 3


def test_chunks_of_any_size_give_the_same():
    colours, clip = ColourMatch(frames(1, 2)[:, 0]), frames(5, 3)
    whole = colours.match(clip)
    parts = torch.cat([colours.match(clip[:, :1]), colours.match(clip[:, 1:])], dim=1)
    assert torch.allclose(whole, parts, atol=1e-6)


def test_frames_of_one_colour_become_the_source_s_mean():
    source = frames(1, 4)
    matched = ColourMatch(source[:, 0]).match(torch.zeros((3, 2, 8, 12)))
    assert torch.isfinite(matched).all()
    assert (matched - matched[:, :, :1, :1]).abs().max() < 1e-5


def test_levels_are_those_below():
    values = torch.tensor([-1.0, -0.9961, 0.0, 0.9999, 1.0]).view(1, 5, 1, 1)
    assert to_levels(values).flatten().tolist() == [0, 0, 127, 254, 255]
