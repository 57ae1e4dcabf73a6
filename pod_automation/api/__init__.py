"""The HTTP API and the dashboard: a face of the client, for people and for those without Kafka.

Needs the extra `api`. `pod-automation api` serves it; see docs/api.md.
"""
