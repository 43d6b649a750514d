"""`python -m peacemaker_nodeagent`: the command line without its launcher."""

from peacemaker_nodeagent.cli import main

main(prog_name="peacemaker-agent")
