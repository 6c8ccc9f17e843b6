"""The finished dataset judged: verdicts given again, curation, thresholds learned."""
