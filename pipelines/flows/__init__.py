"""Prefect flows: one flow run per dataset run, one task per wave of units, never one per volume."""
