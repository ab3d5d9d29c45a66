"""What can be wrong with a weights file."""


class WeightsError(ValueError):
    """A weights file that cannot be used; the message says where and why."""
