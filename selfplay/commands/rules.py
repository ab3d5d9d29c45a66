"""`selfplay rules`: show rules as sentences, explain what they say about one turn."""

from __future__ import annotations

import click

from selfplay.commands import options

RULES = click.option("--rules", metavar="FILE", help="Rule file. [default: the shipped one]")


@click.group(
    "rules", epilog="Example: selfplay rules show --set text\n\n         selfplay rules explain turns.jsonl --row 3"
)
def command() -> None:
    """Show the rules as sentences, and explain what they say about one turn.

    A rule file is JSON that you may edit. Copy the shipped one with `selfplay rules show --file > mine.json`,
    then give it as --rules mine.json. In the copy:

    \b
      where               "sets": {"text": {"rules": […]}, "full": {"rules": […]}}; most turns meet only one of them
      switch a rule off   "enabled": false
      edit it             change a number in its "tests"; a test is [feature, ">=" or "<=", number]
      add one             {"name": "much that is new", "label": "off_topic", "tests": [["new", ">=", 9]]}
      change the order    move it: the first rule that fires decides

    `full` decides turns in English that have all signals, `text` the others. A rule fires when all its tests hold; a
    test on what is not known never holds. `selfplay rules features` lists what can be tested. A mistake gets one line
    that says where it is. Figures such as precision and support belong to the rule as it was learned: take them out
    of one you edit.
    """


@command.command("show", epilog="Example: selfplay rules show --set text | less")
@RULES
@click.option("--set", "name", type=click.Choice(["text", "full"]), help="Only this set. [default: all there are]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--file", "as_file", is_flag=True, help="The rule file itself, to copy and edit.")
def show(rules: str | None, name: str | None, as_json: bool, as_file: bool) -> None:
    """Print the rules as sentences, in order, with how often each was right on turns it was not learned from."""
    from selfplay.showing import rules as rules_shown

    if as_file:
        click.echo(rules_shown.file_text(rules), nl=False)
    elif as_json:
        import json

        click.echo(json.dumps(rules_shown.facts(rules, name), indent=1, ensure_ascii=False))
    else:
        rules_shown.show(rules, name)


@command.command("features", epilog="Example: selfplay rules features | grep answer")
def features() -> None:
    """List what a rule can test: name, range, meaning, and what it catches."""
    from selfplay.showing import rules as rules_shown

    rules_shown.show_features()


@command.command("explain", epilog="Example: selfplay rules explain turns.jsonl --id turn-04 --tiers text")
@click.argument("file")
@click.option("--id", "key", metavar="ID", help="The turn of the row with this id.")
@click.option("--row", type=click.IntRange(min=1), metavar="N", help="The turn of the N-th usable row. [default: 1]")
@click.option("--rules", metavar="text|full|FILE", help="As in `selfplay filter`.")
@options.tiers
@click.option("--all", "everything", is_flag=True, help="Also the rules after the one that decided.")
def explain(file: str, key: str | None, row: int | None, rules: str | None, tiers: str, everything: bool) -> None:
    """Tell for one turn of FILE what each rule asked and found, up to the one that decided.

    FILE is what `selfplay filter` takes. Each test stands with the value of this turn and whether it held, and with
    the words that met it; then what each feature adds to the score of each label.
    """
    from selfplay.showing.rules_explained import explain_row

    explain_row(file, key, row, rules, tiers, everything)
