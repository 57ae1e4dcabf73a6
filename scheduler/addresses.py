"""The form of addresses: what a driver would choke on later, with a traceback."""

from urllib.parse import parse_qsl, unquote, urlsplit

_MOST_PORT = 65_535
_HOST = "this is no name of a host: its parts have 1 to 63 characters"
_PORT = f"write a port from 1 to {_MOST_PORT}"

# Never Python's own words, which quote what stands before the host: the password.
_QUOTE = (
    "this is no URL: quote what is special in the name and the password (%5B for [, %5D for ],"
    " %2F for /, %23 for #, %3F for ?), and close the brackets around an IPv6 address"
)


def kafka_bootstrap(text: str) -> str:
    """`text` without blanks, if it is host:port, comma separated. Raises `ValueError`."""
    hosts = [each.strip() for each in text.split(",")]
    for each in hosts:
        host, colon, port = each.rpartition(":")
        if not colon or (each.startswith("[") and each.endswith("]")):
            host, port = each, "9092"
        if not _is_host(host) or "/" in host or (":" in host and not host.startswith("[")):
            raise ValueError("write host:port, comma separated")
        if not _is_port(port):
            raise ValueError(_PORT)
    return ",".join(hosts)


def server_url(text: str) -> str:
    """`text`, if it is a URL whose host, port and path can be read. Raises `ValueError`.

    Several hosts, as PostgreSQL takes them, are read one by one.
    """
    if not text.isprintable() or " " in text:
        raise ValueError("write the address without blanks, quoted as in a URL")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(_QUOTE) from None
    cut = "@" not in parts.netloc and "@" in text  # by a /, # or ? that stands in the password
    for each in parts.netloc.rpartition("@")[2].split(","):
        _, colon, port = each.rpartition(":")
        if colon and not each.endswith("]") and (port or cut) and not _is_port(port):
            raise ValueError(_QUOTE if cut else _PORT)
        host = unquote(each[: -len(port) - 1] if colon and not each.endswith("]") else each)
        if not host.startswith("/") and not _is_name(host):  # else it is PostgreSQL's socket
            raise ValueError(_HOST)
    try:
        parse_qsl(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError("what follows the ? is not name=value, joined by &") from None
    return text


def listening_host(text: str) -> str:
    """`text`, if one may listen there. Raises `ValueError`."""
    if not _is_host(text):
        raise ValueError(_HOST)
    return text


def _is_host(host: str) -> bool:
    return bool(host) and host.isprintable() and " " not in host and _is_name(host)


def _is_name(host: str) -> bool:
    # As it is looked up: what cannot be written so is no error of the network, but one of Unicode.
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _is_port(text: str) -> bool:
    # ASCII, since int() also takes other digits.
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= _MOST_PORT
