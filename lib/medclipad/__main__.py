"""`python -m medclipad`: the command line."""

from medclipad.cli.main import main

main()
