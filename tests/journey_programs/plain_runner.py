"""The agent under Autobahn's own runner, as somebody else would run it.

python plain_runner.py EDGE_TOML
"""

import sys
from pathlib import Path

from autobahn.twisted.component import run

from components.edge.agent import edge_component
from components.edge.config import load

if __name__ == "__main__":
    run([edge_component(load(Path(sys.argv[1])))])
