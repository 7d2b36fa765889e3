"""Prefect as commands start it: quiet and offline, unless the user's environment says otherwise."""

from __future__ import annotations

import logging
import os

_SERVICES = (
    "CANCELLATION_CLEANUP", "CLEANUP_RECONCILER", "EVENT_PERSISTER", "FOREMAN", "LATE_RUNS", "PAUSE_EXPIRATIONS",
    "REPOSSESSOR", "SCHEDULER", "TASK_RUN_RECORDER", "TRIGGERS",
)  # fmt: skip


def prepare_prefect() -> None:
    """Set what Prefect reads from the environment when it is imported.

    Without a server of the user's, Prefect starts one for the time of the run, which nobody looks at: its services
    are left out, which saves three quarters of the time that a task costs.
    """
    settings = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    settings |= {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "240"}  # a busy machine needs more than 20
    if "PREFECT_API_URL" not in os.environ:
        settings |= {"PREFECT_LOGGING_LEVEL": "CRITICAL", "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL"}
        settings |= {"PREFECT_LOGGING_TO_API_ENABLED": "false", "PREFECT_SERVER_UI_ENABLED": "false"}
        settings |= {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _SERVICES}
        logging.getLogger("EventsWorker").setLevel(logging.CRITICAL)  # it does not heed Prefect's own level
    for name, value in settings.items():
        os.environ.setdefault(name, value)
