"""The wire: event types, their codec, and the generated JSON Schema and AsyncAPI documents."""
