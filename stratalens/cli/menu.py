"""A menu of four predefined analyses, for people who do not want to write options."""

from typing import NamedTuple

from stratalens.cli.main import main as run


class MenuEntry(NamedTuple):
    """One analysis on the menu."""

    title: str
    layers: str
    """As `--layers` takes them; empty where the user is asked for them."""
    output_dir: str


CHOICES = {
    "1": MenuEntry("Complete analysis", "4 10 16 22 28", "complete_financial_analysis"),
    "2": MenuEntry("Fast analysis", "16 22", "fast_financial_analysis"),
    "3": MenuEntry("Single layer analysis", "16", "single_layer_analysis"),
    "4": MenuEntry("Custom analysis", "", "custom_financial_analysis"),
}


def main() -> int:
    """Print the menu, read a choice from standard input, run it and return the exit code."""
    print("Financial features of the embedded model")
    _print_choices()
    while True:
        answer = _ask("Choice [1-4, q to quit]: ")
        if answer is None or answer.lower() in ("q", "quit", "exit"):
            return 0
        if answer in CHOICES:
            break
        print(f"`{answer}` is not on the menu; the choices are:")
        _print_choices()
    choice = CHOICES[answer]
    layers = choice.layers or _ask("Layers, such as 4 10-12 16: ")
    if not layers:
        print("No layers were given; nothing was run.")
        return 0
    words = ["--layers", *layers.replace(",", " ").split(), "--top_n", "30", "--top_features_n", "50"]
    return run(["analyze", *words, "--output_dir", choice.output_dir])


def _print_choices() -> None:
    for key, choice in CHOICES.items():
        print(f"  {key}  {choice.title:22} layers {choice.layers or 'of your choice':15} -> {choice.output_dir}")


def _ask(prompt: str) -> str | None:
    """Ask a question; return the answer without surrounding white space, or None at the end of input."""
    try:
        return input(prompt).strip()
    except EOFError:
        print()
        return None
