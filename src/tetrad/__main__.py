"""`python -m tetrad` is `tetrad`."""

from tetrad.cli import main

if __name__ == "__main__":
    main()
