"""The face of the engine: command line, client, executor SDK, embedded stack and demo."""
