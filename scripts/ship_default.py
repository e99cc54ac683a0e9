"""Makes a training run the default model: weights and model card into the package, bridgedepth_jax/weights/nano.

python scripts/ship_default.py runs/nano --hardware "2 CPU cores" --about about.md --scores scores.md
python scripts/ship_default.py runs/nano_finetune --hardware "2 CPU cores" --origin "runs/nano" --origin-init runs/nano

The words and the scores of the card are Markdown files; the rest of it comes from the run's own logs. A run that did not
start from random weights needs --origin, what it started from in words, and --origin-init, where the card's reader has it.
"""

import argparse
from pathlib import Path

from bridgedepth_jax.errors import InputError, command
from bridgedepth_jax.inference.stereo import DEFAULT_MODEL
from bridgedepth_jax.training.ship import Origin, ship


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, help="--workdir of bridgedepth train")
    parser.add_argument("--hardware", required=True, help="what it was trained on, in words")
    parser.add_argument("--about", type=Path, help="Markdown on what to expect")
    parser.add_argument("--scores", type=Path, help="Markdown with tables of results")
    parser.add_argument("--origin", help="what the run started from, Markdown; left out: random weights")
    parser.add_argument("--origin-init", help="--init in the card's command")
    parser.add_argument("--origin-commands", type=Path, help="file of shell lines that make it")
    parser.add_argument("--temperature", type=float, help="of the confidence, as scripts/health.py finds it")
    parser.add_argument("--out", type=Path, default=DEFAULT_MODEL, help="folder to write, default: that of the package")
    args = parser.parse_args()
    about, scores = (read(file) if file else "Not written yet." for file in (args.about, args.scores))
    if (args.origin is None) != (args.origin_init is None):
        raise InputError("--origin and --origin-init go together, expected both or none")
    commands = read(args.origin_commands) if args.origin_commands else ""
    origin = Origin(args.origin, args.origin_init, commands) if args.origin else None
    words = dict(hardware=args.hardware, about=about, scores=scores)
    ship(args.workdir, args.out, **words, origin=origin, temperature=args.temperature)
    print(args.out)


def read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}, expected a text file") from None


if __name__ == "__main__":
    main()
