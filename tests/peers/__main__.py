"""``python -m peers``: build all programs of other projects, so that no test has to wait for them."""
import sys

from devcluster import binaries
from peers import building, cert_manager, listeners

try:
    for find in (listeners.find, cert_manager.find):
        find(building.say)
except binaries.BinariesError as error:
    sys.exit(str(error))
