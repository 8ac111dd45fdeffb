"""`python -m distbp` is the command line."""

from distbp.cli.main import main

if __name__ == "__main__":
    main()
