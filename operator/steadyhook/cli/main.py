"""The command ``steadyhook``; with ``kubectl-steadyhook`` on the PATH also ``kubectl steadyhook``."""
import click

import steadyhook
from steadyhook.cli import diagnose, repair, reproduce, status


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(steadyhook.__version__, prog_name="steadyhook")
def main() -> None:
    """See, explain and end what goes wrong with a webhook's certificate.

    Exit codes: 0 fine, 1 something is wrong with what was looked at, 2 a wrong command line, 3 it could not be looked
    at or done, 4 not done, 130 interrupted.
    """


main.add_command(status.status)
main.add_command(diagnose.diagnose)
main.add_command(repair.repair)
main.add_command(reproduce.reproduce)
