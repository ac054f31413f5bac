"""The asynchronous client. The blocking one, `hyperdreambooth.client.sync`, is made from this package.

Change it here, then `make generate`. Lists are iterated over with `async for`; `on_progress` may be a coroutine
function.
"""
