"""Ray actors that make cases, and the driver that hands them out, retries and isolates them."""
