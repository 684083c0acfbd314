"""Groups: a controller that orders work, and ranks that share every step of it: denoising, or the VAE's work.

    commands    what a rank is told and what it answers
    member      one process's part, whatever it computes: numbered commands, the world, inputs, failures
    rank        the same for the denoiser: weights, runs, collectives
    vae_rank    the same for the VAE: bands of pictures, and rank 0's segments
    text_rank   the same for text encoders: parts of their layers
    ranks       all ranks as the controller sees them
    local       one rank on a thread of this process
    remote      ranks as Ray actors in the replica's placement group
    crew        ranks under numbered commands: brought up, watched, made anew
    pace        how long steps take, and when one hangs
    resident    one admitted call
    controller  the loop that admits, steps, snapshots, outlives breaks
    stage       the stages over a controller

The controller's side (all but `member`, `rank`, `vae_rank`, `text_rank` and `local`) holds no tensor and loads no
tensor library.
"""

from deployments.group.stage import GroupDecode, GroupStage, start

__all__ = ["GroupDecode", "GroupStage", "start"]
