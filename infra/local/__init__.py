"""Starts the real servers and the platform's own processes, without containers, under one directory."""

from infra.local.platform import read_state, start, start_detached, stop_running
from infra.local.state import PlatformState, ServiceState, Status
from infra.local.supervisor import Supervisor

__all__ = [
    "PlatformState",
    "ServiceState",
    "Status",
    "Supervisor",
    "read_state",
    "start",
    "start_detached",
    "stop_running",
]
