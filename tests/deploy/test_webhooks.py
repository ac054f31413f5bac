"""From the upload of a photo to the message that its subject is ready, through all processes."""

import time

import pytest

from core.webhooks.testing import ReceivedMessage, receiver
from deploy.first_steps import DEMO_FACE
from deploy.local import LocalService
from hyperdreambooth.client import Client
from hyperdreambooth.client.webhook import verify_webhook

pytestmark = pytest.mark.process


def test_what_happens_is_told(service: LocalService) -> None:
    received: list[ReceivedMessage] = []
    with Client(service.url) as client, receiver(received) as url:
        webhook = client.create_webhook(url)
        subject = client.personalize(DEMO_FACE, consent=True)
        client.delete_subject(subject)
        until = time.monotonic() + 30
        while len(received) < 3 and time.monotonic() < until:
            time.sleep(0.1)
        messages = [verify_webhook(message.body, message.headers, webhook.secret) for message in received]
        log = client.deliveries(webhook)
        client.delete_webhook(webhook)
    data = {message["type"]: message["data"] for message in messages}
    assert set(data) == {"job.succeeded", "subject.ready", "subject.deleted"}
    assert data["job.succeeded"]["job_id"] == subject.job_id
    assert {each["subject_id"] for each in data.values()} == {subject.id}
    assert {delivery.id for delivery in log} == {message.headers["webhook-id"] for message in received}
