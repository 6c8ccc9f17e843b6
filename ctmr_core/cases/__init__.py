"""Recipe, manifest, case identity and seeds."""
