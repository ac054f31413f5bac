"""The blocking client. Its files are made from `hyperdreambooth.client.aio` by `make generate`: change those."""
