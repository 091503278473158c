"""`python -m lstmfit` is the console script."""

from lstmfit.cli import main

if __name__ == "__main__":
    main()
