"""Runs the command line, as `warehouse` and as `python -m warehouse`."""

import gc


def main() -> None:
    """Import the commands, and run the one that was asked for."""
    gc.disable()  # what is imported stays: to look for garbage in it is a tenth of a short command's time
    from warehouse import cli

    gc.freeze()
    gc.enable()
    cli.main()


if __name__ == "__main__":
    main()
