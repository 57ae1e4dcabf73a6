"""Contracts: one suite for a port, run against every adapter of it."""
