"""How a talking avatar's video is cut into passes. Integers only, exact by construction (goldens `plans`).

Pass 0, the key-frame pass, makes 81 frames for the first 81 frames of sound. A shorter sound is done with it, cut to
length. Otherwise every further pass is a window of 81 frames; a window begins 64 frames after the one before, and its
first 5 frames are that one's last 5 kept: it keeps 69 and drops 12. Only the last window keeps all. Each window is
steered towards one frame of pass 0, its key frame.

The last window may reach beyond the sound. There the sound's features continue backwards from its end, as if played
in reverse; the frames made for it are cut off.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.plans import VAE_STRIDE_T, latent_frames

FPS = 25
WINDOW_FRAMES = 81
MOTION_FRAMES = 5  # handed on from one window to the next
DROPPED_FRAMES = 12
STRIDE_FRAMES = WINDOW_FRAMES - MOTION_FRAMES - DROPPED_FRAMES
KEY_COPIES = 5  # how often the key frame stands at the end of a window's condition
MIN_FRAMES = 10  # 0.4 s
MAX_FRAMES = 5000  # 200 s
SOUND_REACH = 2  # frames of sound that a video frame hears on either side
LATENT_FRAMES = latent_frames(WINDOW_FRAMES)
MOTION_LATENTS = latent_frames(MOTION_FRAMES)

assert (WINDOW_FRAMES - 1) % VAE_STRIDE_T == 0  # noqa: S101 -- the constants above belong together


@dataclass(frozen=True, slots=True)
class Window:
    """One pass. All numbers are frames at 25 per second."""

    index: int  # 0 is the key-frame pass
    start: int  # of the whole sound: the window's frames are for sound from here on
    motion: int  # leading frames that are the last of the window before; 0 where it begins with the source image
    key_frame: int | None  # of pass 0, whose last KEY_COPIES positions it takes; None for pass 0
    keep_from: int  # its frames keep_from … keep_to − 1 belong to the film
    keep_to: int
    hand_from: int  # its frames hand_from … hand_from + MOTION_FRAMES − 1 begin the next window; 0 for none

    @property
    def kept(self) -> int:
        """Frames of the film that this pass gives."""
        return self.keep_to - self.keep_from

    @property
    def hands_on(self) -> bool:
        """Whether another window continues this one."""
        return self.hand_from > 0


def windows(sound_frames: int) -> tuple[Window, ...]:
    """All passes in their order; the frames they keep add up to `sound_frames`.

    Pass 0 keeps frames only where it is the only one: else the first window makes those moments again.

    Raises:
        ValueError: fewer than MIN_FRAMES or more than MAX_FRAMES.
    """
    if not MIN_FRAMES <= sound_frames <= MAX_FRAMES:
        raise ValueError(f"a sound has {MIN_FRAMES} to {MAX_FRAMES} frames, not {sound_frames}")
    if sound_frames < WINDOW_FRAMES:
        return (Window(0, 0, 0, None, 0, sound_frames, 0),)
    count = -(-(sound_frames - WINDOW_FRAMES) // STRIDE_FRAMES) + 1
    # Key frames are spread over the film as pass 0's frames are; what goes beyond the longest film does not count.
    last_frame = min((count - 1) * STRIDE_FRAMES + WINDOW_FRAMES, MAX_FRAMES) - 1
    passes = [Window(0, 0, 0, None, 0, 0, 0)]
    for index in range(1, count + 1):
        start = (index - 1) * STRIDE_FRAMES
        target = min(start + WINDOW_FRAMES - 1, last_frame)
        key_frame = (2 * target * (WINDOW_FRAMES - 1) + last_frame) // (2 * last_frame)  # rounded; no halves occur
        motion = 0 if index == 1 else MOTION_FRAMES
        last = index == count
        end = sound_frames - start if last else WINDOW_FRAMES - DROPPED_FRAMES
        passes.append(Window(index, start, motion, key_frame, motion, end, 0 if last else end - MOTION_FRAMES))
    return tuple(passes)


def sound_index(window: Window, sound_frames: int) -> tuple[tuple[int, ...], ...]:
    """For each of a pass's 81 frames the frames of sound that it hears: its own and SOUND_REACH on either side.

    What lies beyond the sound is its mirror image in a window (after the last frame comes the last once more, then the
    one before it) and its last frame in a pass 0 that is alone. Neighbours beyond the first or last of that are the
    first or last itself.
    """
    end = sound_frames if window.index == 0 else max(sound_frames, window.start + WINDOW_FRAMES)
    return tuple(
        tuple(
            at
            if (at := min(max(window.start + frame + step, 0), end - 1)) < sound_frames
            else 2 * sound_frames - 1 - at
            for step in range(-SOUND_REACH, SOUND_REACH + 1)
        )
        for frame in range(WINDOW_FRAMES)
    )
