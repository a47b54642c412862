"""Retry rules of activities, and the bound on the wait that a third party may ask for."""

from temporalio import activity

from schema.errors import ProviderError


def next_try_seconds(error: ProviderError) -> float | None:
    """Return how long the present agent activity waits after this error; None where it is not tried again.

    A chain of steps decides by itself when it is tried again, and outside of Temporal nothing is.
    """
    if not error.retryable or not activity.in_activity() or activity.info().activity_type != "agent":
        return None
    info = activity.info()
    policy = info.retry_policy
    if policy is None or 0 < policy.maximum_attempts <= info.attempt:
        return None
    if error.code in (policy.non_retryable_error_types or ()):
        return None
    if error.retry_after_seconds:
        return error.retry_after_seconds
    first, most = policy.initial_interval, policy.maximum_interval or 100 * policy.initial_interval
    pause = first.total_seconds() * policy.backoff_coefficient ** (info.attempt - 1)
    return min(pause, most.total_seconds())
