"""What a case is: anatomy, cases, engines, quality and store. Knows nothing of Ray, Prefect or the command line."""

__version__ = "0.1.0"
