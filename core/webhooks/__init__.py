"""Webhooks: messages about events, sent to the tenants' addresses by a process of its own, `python -m core.webhooks`.

records.py     webhooks, deliveries and attempts, as they are stored
messages.py    the types of event, and what a message says
publish.py     what is sent when a job ends, a subject is deleted, or a batch ends
registry.py    reads and writes webhooks and deliveries in the store
schedule.py    when each delivery is due, in Redis
dispatcher.py  takes what is due, sends it, and records the outcome
sender.py      one attempt: to the address that was checked, and nowhere else
addresses.py   which addresses messages may be sent to
signing.py     how a message is signed (Standard Webhooks)
"""
