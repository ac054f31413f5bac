from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from core.errors import BrokerUnavailable
from core.queue.connection import connect, redis_errors
from core.queue.local_redis import LocalRedis, find_redis_server
from core.queue.notifications import NOTIFICATIONS, QUEUES, TASKS, CeleryNotifier, celery_app
from core.records import JobKind
from core.settings import Settings


@pytest.fixture
def frozen() -> Iterator[str]:
    """A Redis that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def seconds_to_fail(act: Callable[[], object]) -> float:
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        act()
    return time.monotonic() - began


def ping(url: str) -> None:
    with redis_errors():
        connect(Settings(redis_url=url)).ping()


def test_a_redis_that_is_down_or_frozen_is_noticed_within_a_second(frozen: str) -> None:
    assert seconds_to_fail(lambda: ping("redis://127.0.0.1:9/0")) < 1.0
    assert seconds_to_fail(lambda: ping(frozen)) < 1.2


def test_a_redis_that_starts_on_much_data_is_waited_for(tmp_path: Path) -> None:
    with LocalRedis(tmp_path) as server:
        fill = "for key = 1, 300000 do redis.call('SET', KEYS[1] .. key, key) end"
        connect(Settings(redis_url=server.url), patience=20).eval(fill, 1, "key")
        server.kill()
        server.start()
        ping(server.url)


@pytest.mark.parametrize(
    "said",
    [
        "MISCONF Redis is configured to save",
        "NOREPLICAS Not enough",
        "BUSY Redis is busy",
        "ERR Error running script (f_1): @user_script:1: -READONLY You can't write",
        "-OOM no",
    ],
)
def test_a_redis_that_cannot_write_now_is_an_outage(said: str) -> None:
    with pytest.raises(BrokerUnavailable), redis_errors():
        raise ResponseError(said)
    with pytest.raises(ResponseError), redis_errors():
        raise ResponseError("ERR unknown command")


def test_notifying_a_redis_that_is_down_gives_up_within_a_second() -> None:
    notifier = CeleryNotifier(celery_app(Settings(redis_url="redis://127.0.0.1:9/0"), producer=True))
    assert seconds_to_fail(lambda: notifier.notify("generate", "local/job_1")) < 1.5


@pytest.mark.parametrize("kind", JobKind)
def test_notifications_of_all_kinds_wait_in_one_list_and_carry_a_ref_and_nothing_else(
    local_redis: LocalRedis, kind: JobKind
) -> None:
    settings = Settings(redis_url=local_redis.url)
    with connect(settings) as redis:
        redis.flushall()
        CeleryNotifier(celery_app(settings, producer=True)).notify(kind.value, "local/job_1")
        assert redis.llen(NOTIFICATIONS) == 1
        assert "local/job_1" in str(redis.lindex(NOTIFICATIONS, 0))


def test_every_kind_of_job_has_a_task() -> None:
    assert set(TASKS) == set(JobKind)
    assert NOTIFICATIONS in QUEUES


def test_the_settings_that_keep_jobs_alive() -> None:
    conf = celery_app(Settings(job_time_limit=1800), producer=True).conf
    assert (conf.task_acks_late, conf.task_ignore_result, conf.worker_prefetch_multiplier) == (True, True, 1)
    assert (conf.task_time_limit, conf.task_soft_time_limit) == (1800, 1770)
    assert (conf.worker_pool, conf.worker_concurrency) == ("prefork", 1)
    assert conf.worker_proc_alive_timeout >= 60
    assert conf.broker_connection_max_retries is None
    worker = celery_app(Settings(job_time_limit=1800)).conf.broker_transport_options
    assert worker["visibility_timeout"] >= 4 * 1800
    assert (worker["unacked_restore_interval"], worker["unacked_restore_throttle"]) == (10, 1)
    assert (worker["socket_timeout"], worker["socket_connect_timeout"]) == (10, 3)
    assert (worker["socket_keepalive"], worker["health_check_interval"]) == (True, 5)
    assert worker["queue_order_strategy"] == "priority"


def test_a_local_redis_keeps_its_data_and_its_address(tmp_path: Path) -> None:
    server = LocalRedis(tmp_path / "redis")
    with server:
        url, pid = server.url, server.pid
        with connect(Settings(redis_url=url)) as redis:
            redis.set("a", "b")
    assert server.pid is None
    assert seconds_to_fail(lambda: ping(url)) < 1.0
    with server:
        assert (server.url, server.pid != pid) == (url, True)
        with connect(Settings(redis_url=url)) as redis:
            assert redis.get("a") == "b"
        server.kill()
        server.start()
        with connect(Settings(redis_url=url)) as redis:
            assert redis.get("a") == "b"


def test_a_port_that_is_taken_is_an_error_and_not_another_redis(tmp_path: Path, local_redis: LocalRedis) -> None:
    with pytest.raises(BrokerUnavailable, match="did not start"):
        LocalRedis(tmp_path, port=local_redis.port).start(timeout=5.0)


def test_a_server_on_the_path_is_preferred_when_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "redis-server"
    monkeypatch.setenv("PATH", str(tmp_path))
    for version, preferred in (("7.0.15", True), ("6.2.0", True), ("6.0.16", False)):
        server.write_text(f"#!/bin/sh\necho Redis server v={version} sha=0\n")
        server.chmod(0o755)
        assert (find_redis_server() == server) is preferred
