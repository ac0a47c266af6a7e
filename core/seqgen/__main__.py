"""`python -m seqgen` is the command `seqgen`."""

from seqgen_cli.main import main

if __name__ == "__main__":
    main()
