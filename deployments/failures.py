"""Components' errors in the job plane's words, for processes that compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cluster.errors import NonFinite, OutOfMemory
from components.errors import NonFiniteLatents


@contextmanager
def translated() -> Iterator[None]:
    """Raises NonFinite and OutOfMemory for what components raise; everything else passes."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        message = "The device ran out of memory; ask for a smaller size or duration."
        raise OutOfMemory(message, retryable=False) from error
    except NonFiniteLatents as error:
        raise NonFinite("The video became NaN; ask with another seed or prompt.", retryable=False) from error
