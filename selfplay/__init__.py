"""Sample many user turns after each assistant response, throw out the bad, keep the most grounded."""

__version__ = "0.1.0"
