"""The one error of this package."""


class RulesError(ValueError):
    """A rule file that cannot be used: one line with the place and the reason."""
