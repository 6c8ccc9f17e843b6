"""The physics engine: label map and tissue tables in, CT in HU and MR signal out; no weights."""
