"""Adapters over aiokafka."""
