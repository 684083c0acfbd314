"""Which of a chunk's decoded frames belong to the video, and which are handed on: a few are copied while all pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from cluster.chains import Piece, forced, pieces
from cluster.forcing import OVERLAP_FRAMES
from cluster.plans import EXTENSION_PREFIX, extension_rolls
from cluster.records import StageWork
from cluster.registry import MODELS
from cluster.windows import MOTION_FRAMES, windows
from components.values import Frames, Pixels, Value


@dataclass(frozen=True, slots=True)
class Made:
    """Some frames of a chunk."""

    levels_FYXC: NDArray[np.uint8]  # [F, Y, X, 3]
    pixels_CFYX: torch.Tensor | None = None  # [3, F, Y, X] fp32 in [-1, 1], where these are handed on


@dataclass(slots=True)
class Cut:
    """A chunk's frames on their way, counted from the first that is decoded."""

    piece: Piece | None  # None: the video gets none of them
    hand: Mapping[str, Sequence[int]]  # port → the frames that it gets
    _seen: int = 0
    _taken: dict[int, torch.Tensor] = field(default_factory=dict)
    _exact: bool = False

    def pass_on(self, made: Made) -> NDArray[np.uint8]:
        """Of the next frames those that belong to the video, uint8 [F, Y, X, 3]; perhaps none."""
        frames_FYXC = made.levels_FYXC
        self._exact = made.pixels_CFYX is not None
        wanted = set().union(*self.hand.values())
        for index, frame_YXC in enumerate(frames_FYXC):
            if index + self._seen in wanted:
                taken = torch.from_numpy(frame_YXC) if made.pixels_CFYX is None else made.pixels_CFYX[:, index]
                self._taken[index + self._seen] = taken.clone()
        begin, end = (0, 0) if self.piece is None else (self.piece.skipped, self.piece.skipped + self.piece.frames)
        kept = frames_FYXC[max(0, begin - self._seen) : max(0, end - self._seen)]
        self._seen += len(frames_FYXC)
        return kept

    def handed(self) -> Mapping[str, Value]:
        """What the ports get, after the last frame. KeyError when a frame has not passed."""
        found = {port: [self._taken[index] for index in indices] for port, indices in self.hand.items()}
        if self._exact:
            return {port: Pixels(torch.stack(frames, dim=1)) for port, frames in found.items()}
        return {port: Frames(torch.stack(frames)) for port, frames in found.items()}


def cut_of(work: StageWork) -> Cut:
    """The cut of a decode call."""
    request, chunk = work.request, work.call.ref.chunk
    found = {piece.chunk: piece for piece in pieces(request)}
    hand: dict[str, Iterable[int]] = {}
    match MODELS[request.model].graph:
        case "extend" if chunk < max(found):
            frames = extension_rolls(request.duration_s)[chunk - 1].decoded_frames
            hand["tail"] = range(frames - EXTENSION_PREFIX, frames)
        case "df" if chunk < max(found):
            frames = forced(request)[chunk - 1].decoded_frames
            hand["tail"] = range(frames - OVERLAP_FRAMES, frames)
        case "avatar":
            made = windows(request.frames)
            if chunk == 0:
                hand = {f"key{w.index}": [w.key_frame] for w in made if w.key_frame is not None}
            elif made[chunk].hands_on:
                hand["tail"] = range(made[chunk].hand_from, made[chunk].hand_from + MOTION_FRAMES)
    return Cut(found.get(chunk), {port: tuple(indices) for port, indices in hand.items()})
