"""``python -m fertools`` is the ``fertools`` command of this very interpreter."""

from fertools.cli import main

if __name__ == "__main__":
    main(prog_name="fertools")
