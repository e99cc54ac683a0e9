"""Pure functions of arrays: the mathematics that the modules share."""
