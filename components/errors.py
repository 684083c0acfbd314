"""What a component can refuse. `deployments` maps these onto the job plane's tree.

ComponentError
├── MediaError           the file is not what it should be, or too large
├── CheckpointMismatch   a key is missing, unexpected or of another shape
├── SnapshotMismatch     the snapshot belongs to other weights or another shape
├── NonFiniteLatents     NaN or Inf after a step
└── Unsupported          this machine cannot run the chosen option
"""

from __future__ import annotations


class ComponentError(Exception):
    """Root of the components' errors."""


class MediaError(ComponentError):
    """An image, sound or video cannot be read or exceeds its bounds."""


class CheckpointMismatch(ComponentError):
    """The weights on disk do not fit the model, key by key; the message names the first ones."""


class SnapshotMismatch(ComponentError):
    """A snapshot was taken by other weights, another solver or another shape."""


class NonFiniteLatents(ComponentError):
    """A step produced NaN or Inf."""


class Unsupported(ComponentError):
    """The option needs hardware or a package that is not here."""
