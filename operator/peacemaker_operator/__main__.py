"""`python -m peacemaker_operator`: the command line without its launcher."""

from peacemaker_operator.cli import main

main(prog_name="peacemaker-operator")
