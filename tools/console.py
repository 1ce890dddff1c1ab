"""What the demo and the benchmark print: steps, and lines below them."""

from rich.console import Console

console = Console(highlight=False, soft_wrap=True)


def step(title: str) -> None:
    console.print(f"[bold]==> {title}[/bold]")


def note(line: str) -> None:
    console.print(f"    {line}")
