"""Programs that steadyhook has to get on with, run for real."""
