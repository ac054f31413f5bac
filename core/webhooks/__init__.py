"""Webhooks are told here, by a process of its own: `python -m core.webhooks`.

targets.py    which addresses may be told at all
signing.py    how a message is signed (Standard Webhooks)
post.py       one attempt: to the address that was checked, and nowhere else
dispatcher.py    takes what is due, sends it, and decides what becomes of it

What is to be told, and to whom, stands in core/webhooks/registry.py.
"""
