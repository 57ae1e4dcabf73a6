"""What uvloop makes of a connection that has gone."""


def is_closed(error: BaseException) -> bool:
    """Whether `error` says that a connection was closed while somebody was about to write.

    uvloop raises a plain `RuntimeError` there, where asyncio raises none; no driver expects it.
    """
    return type(error) is RuntimeError and "the handler is closed" in str(error)
