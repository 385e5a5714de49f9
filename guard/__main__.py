"""`python -m guard`: the command line, also where its script is not on the path.

This module does not know any command.
"""

from guard.cli import main

if __name__ == "__main__":
    main()
