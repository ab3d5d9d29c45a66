"""Drawing again where too few turns may be chosen: `selfplay run --until-survivors`."""
