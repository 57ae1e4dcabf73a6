"""The demo: the whole engine on real servers, with time compressed, and a count at the end."""
