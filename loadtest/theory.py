"""Queues of known law, to compare a server with: waits of requests that share one queue before equal workers.

Rates are per second, times seconds. `load` is arrivals × mean service / workers, below 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable


def erlang_c(load: float, workers: int) -> float:
    """Probability of waiting in M/M/c (Erlang, 1917), by the stable recursion of Erlang's B."""
    offered = load * workers
    blocked = 1.0
    for count in range(1, workers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    return blocked / (1 - load * (1 - blocked))


def mmc_wait_s(load: float, workers: int, service_s: float) -> float:
    """Mean wait in M/M/c."""
    return erlang_c(load, workers) * service_s / (workers * (1 - load))


def mmc_within(seconds: float, load: float, workers: int, service_s: float) -> float:
    """Probability that wait and service of M/M/c together take at most `seconds`."""
    rate = 1 / service_s
    spare = workers * (1 - load) * rate  # rate at which a wait shrinks
    waiting = erlang_c(load, workers)
    if seconds <= 0:
        return 0.0
    none = -math.expm1(-rate * seconds)
    if math.isclose(spare, rate):
        both = 1 - math.exp(-rate * seconds) * (1 + rate * seconds)
    else:
        both = 1 - (spare * math.exp(-rate * seconds) - rate * math.exp(-spare * seconds)) / (spare - rate)
    return (1 - waiting) * none + waiting * both


def md1_wait_within(seconds: float, load: float, service_s: float) -> float:
    """Probability that a wait in M/D/1 is at most `seconds` (Erlang, 1909). Exact sums lose digits: for waits of up to
    about twenty services.
    """
    if seconds < 0:
        return 0.0
    services = seconds / service_s
    terms = []
    for count in range(math.floor(services) + 1):
        exponent = load * (count - services)  # at most 0
        terms.append(exponent**count / math.factorial(count) * math.exp(-exponent))
    return (1 - load) * math.fsum(terms)


def allen_cunneen_wait_s(load: float, workers: int, service_s: float, arrivals_cv: float, service_cv: float) -> float:
    """Approximate mean wait in G/G/c: that of M/M/c × the mean of the squared CVs (Allen 1978). Exact for M/M/c and
    M/G/1.
    """
    return mmc_wait_s(load, workers, service_s) * (arrivals_cv**2 + service_cv**2) / 2


def mdc_wait_s(load: float, workers: int, service_s: float) -> float:
    """Approximate mean wait in M/D/c (Cosmetatos, 1975); exact for one worker."""
    factor = 1 + (1 - load) * (workers - 1) * (math.sqrt(4 + 5 * workers) - 2) / (16 * workers * load)
    return mmc_wait_s(load, workers, service_s) / 2 * factor


def quantile(within: Callable[[float], float], probability: float, most_s: float = 1e6) -> float:
    """The seconds within which a share `probability` falls, by bisection on a distribution function."""
    low, high = 0.0, most_s
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < probability else (low, middle)
    return high
