"""The form of the three addresses: what a driver would choke on later, with a traceback."""

from urllib.parse import parse_qsl, urlsplit

_MOST_PORT = 65_535


def kafka_bootstrap(text: str) -> str:
    """`text` without blanks, if it is host:port, comma separated. Raises `ValueError`."""
    hosts = [each.strip() for each in text.split(",")]
    for each in hosts:
        host, colon, port = each.rpartition(":")
        if not colon or (each.startswith("[") and each.endswith("]")):
            host, port = each, "9092"
        if not _is_host(host) or "/" in host or (":" in host and not host.startswith("[")):
            raise ValueError("write host:port, comma separated")
        _port(port)
    return ",".join(hosts)


def server_url(text: str) -> str:
    """`text`, if it is a URL whose host, port and path can be read. Raises `ValueError`.

    Several hosts, as PostgreSQL takes them, are read one by one.
    """
    if not text.isprintable() or " " in text:
        raise ValueError("write the address without blanks, quoted as in a URL")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ValueError(f"this is no URL: {error}") from None
    try:
        parse_qsl(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("what follows the ? is not name=value, joined by &") from None
    for each in parts.netloc.rpartition("@")[2].split(","):
        _, colon, port = each.rpartition(":")
        if colon and not each.endswith("]") and port:
            _port(port)
    return text


def _is_host(host: str) -> bool:
    return bool(host) and host.isprintable() and " " not in host


def _port(text: str) -> None:
    # ASCII, since int() also takes other digits.
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= _MOST_PORT):
        raise ValueError(f"write a port from 1 to {_MOST_PORT}")
