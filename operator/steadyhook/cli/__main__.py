"""``python -m steadyhook.cli``."""
from steadyhook.cli import main

main.main(prog_name="steadyhook")
