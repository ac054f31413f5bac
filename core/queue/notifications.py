"""Notifications to the workers, by Celery: a message says that there is work, the ledger says which and whose."""

from __future__ import annotations

from typing import Any, Protocol

from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from core.errors import BrokerUnavailable
from core.settings import Settings

NOTIFICATIONS = "interactive"
"""The Celery queue of all notifications, and the list in Redis that it is."""
QUEUES = (NOTIFICATIONS, "train")
"""What workers listen to: earlier versions notify of personalizing jobs in the second one."""
ENOUGH_NOTIFICATIONS = 64
"""So many on their way are enough, however many jobs are accepted."""
TASKS = {"personalize": "worker.tasks.personalize", "generate": "worker.tasks.generate"}
"""The Celery task that a notification starts, by the kind of job that was its occasion: workers of earlier versions
claim one of that kind, those of this one take whatever the ledger says."""

MAX_TASKS_PER_CHILD = 500
"""Notifications after which a worker process is replaced, as a guard against slow leaks."""


class Notifier(Protocol):
    """Notifies a worker that there is work. A lost notification delays a job, and loses nothing."""

    def notify(self, kind: str, ref: str) -> None:
        """Let a worker know that there is work, such as the job `ref` ("tenant/id").

        Raises BrokerUnavailable, within a second.
        """


class CeleryNotifier:
    """Sends a Celery message with the job's ref and nothing else; the task is named, never imported."""

    def __init__(self, app: Celery) -> None:
        """`app` is made with `celery_app(settings, producer=True)`, in the process that sends."""
        self._app = app

    def notify(self, kind: str, ref: str) -> None:
        """See Notifier."""
        try:
            self._app.send_task(TASKS[kind], args=[ref], queue=NOTIFICATIONS, ignore_result=True)
        except (OperationalError, RedisError, OSError) as error:
            raise BrokerUnavailable("The queue cannot be reached; try again in a moment.") from error


def celery_app(settings: Settings, *, producer: bool = False) -> Celery:
    """Celery as this project uses it. A `producer` only sends notifications, and gives up within a second.

    Which worker does which job, and whether it was done, is in the ledger: messages may be lost or delivered twice.
    """
    app = Celery("hyperdreambooth", set_as_current=not producer)
    app.conf.update(
        broker_url=settings.redis_url,
        broker_transport_options=_transport(settings, producer=producer),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # a Redis that cannot write answers with an error: a worker outlives it
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1},
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
        task_default_queue=QUEUES[0],
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_time_limit=settings.job_time_limit,
        task_soft_time_limit=settings.soft_time_limit,
        worker_prefetch_multiplier=1,
        worker_pool="prefork",
        worker_concurrency=1,
        worker_proc_alive_timeout=settings.load_time_limit,
        worker_max_tasks_per_child=MAX_TASKS_PER_CHILD,
        worker_max_memory_per_child=settings.worker_max_memory_mb and settings.worker_max_memory_mb * 1024,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )
    return app


def _transport(settings: Settings, *, producer: bool) -> dict[str, Any]:
    common = {
        # Only a backstop: a lease that runs out brings a job back long before its message comes back.
        "visibility_timeout": max(3600, 4 * settings.job_time_limit),
        "queue_order_strategy": "priority",
        "socket_keepalive": True,
        "health_check_interval": 5,
    }
    if producer:
        return common | {"socket_timeout": 0.8, "socket_connect_timeout": 0.4}
    return common | {
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "socket_timeout": 10,
        "socket_connect_timeout": 3,
    }
