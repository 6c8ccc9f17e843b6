"""How many: Prefect flows, Ray actors and the command line around ``ctmr_core``."""
