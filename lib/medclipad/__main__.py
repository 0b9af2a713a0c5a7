"""`python -m medclipad`: the command line."""

from medclipad.cli import main

main()
