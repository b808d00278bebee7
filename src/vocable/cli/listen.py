"""The commands `vocable listen`."""

from __future__ import annotations

from pathlib import Path

import typer

from vocable.cli.results import print_table, stages
from vocable.terminal import printable

app = typer.Typer(help="Make listening tests, serve them, and report on the answers.", no_args_is_help=True)

PLAN = typer.Argument(help="A YAML plan; docs/how-to/listen.md says how to write one.")
SET = typer.Option([], "--set", help="Override a value of the plan, for example clips=8.")


@app.callback()
def _listen() -> None:
    pass


@app.command()
def make(
    plan: Path = PLAN,
    out: Path = typer.Option(..., "-o", "--out", help="The folder of the test: public/ for listeners, key.json."),
    override: list[str] = SET,
) -> None:
    """Make a listening test: one page with all audio, the stimuli as files, and the key."""
    from vocable.evaluation.listening.plan import load_plan
    from vocable.evaluation.listening.study import make

    with stages() as progress:
        key = make(load_plan(plan, override), out, progress=progress)
    listeners, pages = key["plan"]["listeners"], max(map(len, key["forms"]))
    power = f"power {key['expected_power']:.2f} under the plan's assumptions"
    typer.echo(f"{listeners} listeners, {len(key['clips'])} clips, at most {pages} pages for each; {power}")
    typer.echo(f"{out}/public/test.html is the test; keep {out}/key.json from listeners", err=True)


@app.command()
def serve(
    study: Path = typer.Argument(help="A folder of `vocable listen make`."),
    host: str = typer.Option("127.0.0.1", help="The address to listen at; 0.0.0.0 for all of this machine."),
    port: int = typer.Option(8000, min=0, max=65535, help="The port to listen at; 0 for any that is free."),
) -> None:
    """Serve a test, and store the answers in the folder's answers/."""
    from vocable.evaluation.listening.server import create_app
    from vocable.extras import need

    uvicorn = need("uvicorn", "listen")
    uvicorn.run(create_app(study), host=host, port=port, log_level="info", access_log=False)


@app.command()
def report(
    answers: list[Path] = typer.Argument(None, help="Files of answers, or folders of them."),
    key: Path = typer.Option(..., help="key.json of the test."),
    out: Path = typer.Option(..., "-o", "--out", help="The folder of the report."),
) -> None:
    """Screen the listeners; write means, tests, reliability, power and predictors."""
    from vocable.evaluation.listening.answers import read_answers
    from vocable.evaluation.listening.report import notes, report, tables
    from vocable.evaluation.listening.study import read_key

    content, plan = read_key(key)
    summary = report(read_answers(answers or [], content, plan), content, plan, out)
    for heading, table in tables(summary, plan).items():
        typer.echo(heading)
        print_table(*table)
    for line in notes(summary, plan):
        typer.echo(printable(line))
    typer.echo(
        f"{summary['listeners_kept']} listeners, {len(summary['left_out'])} left out: {out}/index.html", err=True
    )


@app.command()
def simulate(
    plan: Path = typer.Argument(help="A YAML plan, or key.json of a test that was made."),
    studies: int = typer.Option(1000, min=1, help="The number of simulated studies."),
    careless: float = typer.Option(0.1, min=0.0, max=0.9, help="The fraction of careless listeners."),
    seed: int = typer.Option(0, min=0, max=2**32 - 1, help="Seed of the simulation."),
    override: list[str] = SET,
    rehearse: Path = typer.Option(
        None, help="Also write answers of simulated listeners to this folder, to rehearse the report (key.json only)."
    ),
) -> None:
    """Simulate studies of a plan: coverage of intervals, false positives, screening, power."""
    from vocable.evaluation.listening import rehearsal, simulation
    from vocable.evaluation.listening.plan import load_plan
    from vocable.evaluation.listening.study import read_key

    if plan.suffix == ".json":
        key, sized = read_key(plan)
        if rehearse:
            rehearsal.write_answers(key, sized, rehearse, careless=careless, seed=seed)
    elif rehearse:
        raise ValueError("a rehearsal needs a test: name its key.json instead of the plan")
    else:
        sized = load_plan(plan, override).sized()
    scale = sized.scale
    design = simulation.Design(scale, sized.heard(), sized.checks, careless, sized.spread or scale.spread)
    found = simulation.check(design, effect=sized.effect, studies=studies, seed=seed)
    meanings = {
        "covered": "intervals that contain the true mean",
        "found_by_chance": "studies of equal systems in which a difference is found",
        "found": f"differences of {sized.effect:g} that are found",
        "careless_excluded": "careless listeners who are screened",
        "attentive_excluded": "attentive listeners who are screened",
    }
    print_table(["", "%"], [[meanings[name], f"{100 * value:.1f}"] for name, value in found.items()])
    kept = round(sized.listeners * (1 - careless))
    typer.echo(
        f"{studies} studies of {sized.listeners} listeners and {sized.clips} clips; expected power "
        f"{sized.expected_power(kept):.2f} with {kept} attentive listeners"
    )
