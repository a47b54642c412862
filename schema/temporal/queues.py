"""The platform's task queues."""

QUEUE_COLLABORATIONS = "collaborations"
QUEUE_MEMORY = "memory"
QUEUE_LEARNING = "learning"
QUEUE_PROJECTIONS = "projections"
PLATFORM_QUEUES = frozenset({QUEUE_COLLABORATIONS, QUEUE_MEMORY, QUEUE_LEARNING, QUEUE_PROJECTIONS})
"""The queues that the platform's own workers serve; no definition may name them."""
TASK_TIMEOUT_SECONDS = 2.0
"""Timeout of a run's workflow tasks. With Temporal's own 10 s a run whose worker died would wait as long."""
