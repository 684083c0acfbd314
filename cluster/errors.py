"""Every error the system speaks of, as one tree. Each leaf says what the caller can do.

    SkyreelsError
    ├── InvalidRequest          change the request
    │   ├── UnknownModel        … name a served model
    │   ├── Unsupported         … ask for what a served model does
    │   ├── MediaRejected       … send another image, video or sound
    │   └── UrlRejected         … send a public URL, a data URI or a file
    ├── Unauthenticated         send a valid API key
    ├── Forbidden               use an admin key
    ├── NotFound                check the id
    ├── Conflict                the object is not in a state that allows this
    ├── LimitExceeded           wait `retry_after_s`
    ├── Unavailable             wait `retry_after_s`
    ├── StageError              the work itself failed; `retryable` says whether another attempt can help
    │   ├── OutOfMemory         … ask for a smaller size
    │   ├── NonFinite           … ask with another seed or prompt
    │   ├── Damaged             … nothing; the system tries again from the stage's inputs
    │   └── WorkerLost          … nothing; the system retries
    ├── StaleEpoch              (internal) the lease has passed to somebody else; stop and write nothing
    ├── ConfigError             tell the operator: the configuration names what to change
    └── CheckpointError         tell the operator: the weights do not fit the model

`code` is the stable machine name that reaches API clients; `param` names the request field at fault.
The table from leaves to HTTP statuses and dialect envelopes lives at the HTTP edge (`deployments.api.errors`).
"""

from __future__ import annotations


class SkyreelsError(Exception):
    """Root of the tree. The message is one sentence that says what to change."""

    code = "internal_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequest(SkyreelsError):
    """The request can never succeed as written."""

    code = "invalid_request"


class UnknownModel(InvalidRequest):
    """No served model has this name or alias."""

    code = "model_not_found"


class Unsupported(InvalidRequest):
    """The request is well formed, but no served model does this."""

    code = "unsupported_operation"


class MediaRejected(InvalidRequest):
    """An input file is of the wrong type, too large, or cannot be decoded."""

    code = "invalid_media"


class UrlRejected(InvalidRequest):
    """An input URL is malformed, internal, unreachable or answered with an error."""

    code = "invalid_url"


class Unauthenticated(SkyreelsError):
    """The request has no API key, or one that opens nothing."""

    code = "invalid_api_key"


class Forbidden(SkyreelsError):
    """The key may not do this."""

    code = "permission_denied"


class NotFound(SkyreelsError):
    """No such object, or it belongs to another tenant."""

    code = "not_found"


class Conflict(SkyreelsError):
    """The object exists but its state does not allow the call (content of an unfinished job)."""

    code = "conflict"


class _Wait(SkyreelsError):
    def __init__(self, message: str, *, retry_after_s: float, param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.retry_after_s = retry_after_s


class LimitExceeded(_Wait):
    """A tenant's limit is reached."""

    code = "rate_limit_exceeded"


class Unavailable(_Wait):
    """A part of the system is not reachable now (job store, artifact store)."""

    code = "service_unavailable"


class StageError(SkyreelsError):
    """A stage of a job failed."""

    code = "generation_failed"

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class OutOfMemory(StageError):
    """The device ran out of memory for this job's size."""

    code = "out_of_memory"


class NonFinite(StageError):
    """The latents became NaN or Inf."""

    code = "non_finite"


class Damaged(StageError):
    """A stored file does not hold the bytes that were written; its hash says so."""

    code = "damaged_file"


class WorkerLost(StageError):
    """The process that held the stage died or stopped answering."""

    code = "worker_lost"


class StaleEpoch(SkyreelsError):
    """The caller's epoch is not the stage's current one (a newer worker owns it, or the job has ended)."""

    code = "stale_epoch"


class ConfigError(SkyreelsError):
    """The configuration is invalid; the message starts with the path of the key."""

    code = "config_error"


class CheckpointError(SkyreelsError):
    """A checkpoint is missing, incomplete or of another shape; the message names the key."""

    code = "checkpoint_error"
