"""What the demo asks PostgreSQL, one query a file."""

from importlib.resources import files


def query(name: str) -> str:
    """The text of <name>.sql."""
    return files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
