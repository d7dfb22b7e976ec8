"""`python -m qdx`: the command line without the installed script."""

from qdx.cli.main import main

if __name__ == "__main__":
    main()
