"""Sequence parallelism (USP): Ulysses, ring, and both, for any number of tokens, exact.

Why not the library's own context-parallel hooks: they cut sequences of any length with Ulysses alone or with ring
alone, never with both; every attention call then asks all ranks for their sizes, four times; a sequence shorter than
the group is refused; on CPU there is no ring, as PyTorch's public attention has no log-sum-exp; and the padded
alternative needs a mask, which flash kernels refuse and its ring applies to the wrong keys. Here padding sits at the
end of the sequence and is cut off the keys, so lengths are known in advance and nothing needs a mask.

    init_group(rank=…, world_size=…, address=…, port=…, timeout_s=…)
    meshes = Meshes("cpu", timeout_s=…)
    parallel = SequenceParallel(model, meshes)
    parallel.use(Layout(ulysses=2, ring=2))     # from here on a forward is shared
    parallel.use(SINGLE)                        # and from here on it is not
    close_group()

    layout      which ranks share a forward, which tokens a rank holds: integers only
    group       the world, votes, device meshes
    kernels     attention over a part of the keys
    attention   the exchange of tokens, heads, keys and values
    joint       the same for text that is part of the sequence
    engines     kernels of other packages
    parallel    cutting and joining a model's forward
    branches    the branches of a guided step on different ranks
"""

from components.usp.branches import BranchParallel
from components.usp.group import Meshes, close_group, highest, init_group, vote
from components.usp.layout import SINGLE, Layout, SplitPlan, check, layouts, legal_layouts, partition, pick, split_plan
from components.usp.parallel import SequenceParallel

__all__ = [
    "SINGLE",
    "BranchParallel",
    "Layout",
    "Meshes",
    "SequenceParallel",
    "SplitPlan",
    "check",
    "close_group",
    "highest",
    "init_group",
    "layouts",
    "legal_layouts",
    "partition",
    "pick",
    "split_plan",
    "vote",
]
